"""Writes the scores of any number of pictures to a CSV file, which is there when it is whole."""

from __future__ import annotations

import fcntl
import glob
import os
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from gradbench.errors import GradbenchError, printable
from gradbench.predict.scorer import ABNORMAL, VERDICT
from gradbench.predict.target import target
from gradbench.support.text import for_spreadsheet, path_text

if TYPE_CHECKING:
    import pandas

LISTED = 20
"""Unreadable files that a summary names; all of them are in the CSV file."""


@dataclass
class Summary:
    """What was written.

    Attributes:
        path: of the CSV file.
        pictures: rows in it.
        unreadable: how many of them have no numbers.
        reasons: (file, reason) of the first of these.
        abnormal: pictures that each detector calls abnormal.
    """

    path: Path
    pictures: int = 0
    unreadable: int = 0
    reasons: list[tuple[str, str]] = field(default_factory=list)
    abnormal: Counter = field(default_factory=Counter)

    def add(self, frame: pandas.DataFrame) -> None:
        """Count the rows of a part."""
        faults = frame[frame["note"].ne("")]
        self.pictures += len(frame)
        self.unreadable += len(faults)
        room = LISTED - len(self.reasons)
        self.reasons += list(zip(faults["file"][:room], faults["note"][:room]))
        for name in frame:
            if name.startswith(VERDICT):
                self.abnormal[name.removeprefix(VERDICT)] += int(frame[name].eq(ABNORMAL).sum())


class ScoresFile:
    """A CSV file that is written part by part beside its place, and moved there at the end.

    Used as a context manager; where that is left by an exception, nothing remains.

    Args:
        path: of the file; folders above it are made, see `target` for what is replaced.
        pictures: that are read meanwhile, and are not replaced.

    Raises:
        GradbenchError: if it cannot be written, or would replace what is no file of scores.
    """

    def __init__(self, path: str | Path, pictures: Iterable[Path] = ()):
        self.path = target(path, pictures)
        self._part = self.path.with_name(f".{self.path.name}.{os.getpid()}.part")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = self._part.open("w", newline="", encoding="utf-8")
        except OSError as fault:
            raise self._refused(fault) from fault
        with suppress(OSError):  # not every file system has locks
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._remove_left()

    def __enter__(self) -> ScoresFile:
        return self

    def __exit__(self, kind, *_):
        self._stream.close()
        self._part.unlink(missing_ok=True)

    def write(self, frames: Iterable[pandas.DataFrame]) -> Summary:
        """Write all parts, and put the file in its place.

        Raises:
            GradbenchError: if it cannot be written, or not one of the pictures can be read.
        """
        summary = Summary(self.path)
        for frame in map(_for_spreadsheets, frames):
            try:
                frame.assign(file=frame["file"].map(path_text)).to_csv(
                    _Rows(self._stream),
                    index=False,
                    header=not summary.pictures,
                    lineterminator=_Rows.END,
                )
            except OSError as fault:
                raise self._refused(fault) from fault
            summary.add(frame)
        if summary.unreadable == summary.pictures:
            raise self._no_picture(summary)
        try:
            self._stream.close()
            os.replace(self._part, self.path)
        except OSError as fault:
            raise self._refused(fault) from fault
        return summary

    def _no_picture(self, summary: Summary) -> GradbenchError:
        path, reason = summary.reasons[0] if summary.reasons else ("nothing", "no files named")
        what = f"{printable(path)} is no picture that can be read ({reason})"
        if summary.pictures > 1:
            what = f"none of {summary.pictures} files can be read, the first of them: {what}"
        return GradbenchError(f"{what}: {printable(self.path)} is not written")

    def _remove_left(self) -> None:
        """Remove parts that killed processes left; a living one holds the lock of its part."""
        for left in self.path.parent.glob(f".{glob.escape(self.path.name)}.*.part"):
            if left != self._part and left.is_file():
                with suppress(OSError), left.open("rb") as stream:
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    left.unlink()

    def _refused(self, fault: OSError) -> GradbenchError:
        reason = fault.strerror or str(fault)
        return GradbenchError(
            f"scores cannot be written to {printable(self.path)} ({reason}): make room or rights "
            "there, or name another file with --out FILE"
        )


def _for_spreadsheets(frame: pandas.DataFrame) -> pandas.DataFrame:
    """Return a table in which no text, a file's name for example, can be taken for a formula."""
    texts = [name for name in frame if frame[name].dtype.kind not in "biuf"]
    return frame.assign(
        **{
            name: [for_spreadsheet(v) if isinstance(v, str) else v for v in frame[name]]
            for name in texts
        }
    )


class _Rows:
    """Takes the rows of a CSV writer and ends them with a line feed.

    The writer quotes the signs that end its rows and no other breaks of lines: file names may hold
    both, so that it is told to end them with both.
    """

    END = "\r\n"

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, row: str) -> int:
        """Write one row."""
        return self._stream.write(row.removesuffix(self.END) + "\n")
