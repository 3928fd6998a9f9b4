"""Writes the scores of any number of pictures to a CSV file, which is there when it is whole.

It replaces earlier scores, never a picture or a part of a run.
"""

from __future__ import annotations

import fcntl
import glob
import os
import stat
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from gradbench.errors import GradbenchError, printable
from gradbench.predict.run_scorer import ABNORMAL, VERDICT
from gradbench.support.text import expand_home, for_spreadsheet, path_text

if TYPE_CHECKING:
    import pandas

START = b"file,class,probability,"
"""How a file of scores begins."""
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
        path: of the file; folders above it are made, see `scores_path` for what is replaced.
        pictures: that are read meanwhile, and are not replaced.

    Raises:
        GradbenchError: if it cannot be written, or would replace what is no file of scores.
    """

    def __init__(self, path: str | Path, pictures: Iterable[Path] = ()):
        self.path = scores_path(path, pictures)
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


def scores_path(path: str | Path, pictures: Iterable[Path] = ()) -> Path:
    """Return the path that scores go to.

    A folder with a `run.json` is a run: of its files only earlier scores may be replaced, and its
    `model/` stays as it is. Links are not followed: /dev/stdout is one.

    Args:
        path: of a file that is there, or not yet.
        pictures: that are read meanwhile.

    Raises:
        GradbenchError: if it is a folder, a link, a device, a picture, or belongs to a run.
    """
    path = expand_home(path)
    name = printable(path)
    if os.path.isdir(path):
        raise GradbenchError(f"{name} is a folder: name a file, --out {name}/NAME.csv")
    there = os.path.lexists(path)
    if there and not stat.S_ISREG(os.lstat(path).st_mode):
        raise GradbenchError(
            f"{name} is a link, a device or a pipe: scores go to a file, name one with --out FILE"
        )
    scores = there and _holds_scores(path)
    if there and not scores and any(_same(path, picture) for picture in pictures):
        raise GradbenchError(f"{name} is one of the pictures: name another file with --out FILE")
    whole = Path(os.path.realpath(path.parent), path.name)
    home = next((p for p in whole.parents if os.path.isfile(p / "run.json")), None)
    if home and (home / "model") in whole.parents:
        raise GradbenchError(
            f"{name} lies where a run keeps its networks: name another file with --out FILE"
        )
    if home and there and not scores:
        raise GradbenchError(
            f"{name} is a file of the run in {printable(home)} and holds no scores: name another "
            "file with --out FILE"
        )
    return path


def _holds_scores(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(len(START)) == START
    except OSError:
        return False


def _same(path: Path, picture: Path) -> bool:
    try:
        return os.path.samefile(path, picture)
    except (OSError, ValueError):  # pictures that are not there are told later
        return False
