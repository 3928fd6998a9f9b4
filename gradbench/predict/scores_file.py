"""Writes the scores of any number of pictures to a CSV file, which is there when it is whole.

It replaces earlier scores and nothing else.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

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
    """Counts of the rows of a file of scores.

    `unreadable` of its `pictures` have no numbers, `reasons` are (file, reason) of the first of
    them; `abnormal` counts the pictures that each detector calls so.
    """

    path: Path
    pictures: int = 0
    unreadable: int = 0
    reasons: list[tuple[str, str]] = field(default_factory=list)
    abnormal: Counter = field(default_factory=Counter)


class ScoresFile:
    """A CSV file that is written part by part beside its place, and moved there at the end.

    Used as a context manager; where that is left by an exception, nothing remains. Folders above
    it are made.

    Raises:
        GradbenchError: if it cannot be written, or would replace what is no file of scores.
    """

    def __init__(self, path: str | Path):
        self.path = scores_path(path)
        # no process id: those of two machines or containers that share a folder may be equal
        self._part = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}.part")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = self._part.open("x", newline="", encoding="utf-8")
        except OSError as fault:
            raise self._refused(fault) from fault

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
        for frame in frames:
            # csv quotes a line feed and no bare carriage return, which ends a row for its readers
            names = [path_text(path).replace("\r", r"\r") for path in frame["file"]]
            frame = frame.assign(file=names)
            for name in frame.select_dtypes(exclude="number"):
                frame[name] = [for_spreadsheet(text) for text in frame[name]]
            try:
                frame.to_csv(self._stream, index=False, header=not summary.pictures)
            except OSError as fault:
                raise self._refused(fault) from fault
            faults = frame[frame["note"].ne("")]
            summary.pictures += len(frame)
            summary.unreadable += len(faults)
            room = LISTED - len(summary.reasons)
            summary.reasons += list(zip(faults["file"][:room], faults["note"][:room]))
            for name in frame.filter(regex=f"^{VERDICT}"):
                abnormal = int(frame[name].eq(ABNORMAL).sum())
                summary.abnormal[name.removeprefix(VERDICT)] += abnormal
        if summary.unreadable == summary.pictures:
            path, reason = summary.reasons[0] if summary.reasons else ("nothing", "no files named")
            text = f"{printable(path)} is no picture that can be read ({reason})"
            if summary.pictures > 1:
                text = f"none of {summary.pictures} files can be read, the first of them: {text}"
            raise GradbenchError(f"{text}: {printable(self.path)} is not written")
        try:
            self._stream.close()
            os.replace(self._part, self.path)
        except OSError as fault:
            raise self._refused(fault) from fault
        return summary

    def _refused(self, fault: OSError) -> GradbenchError:
        return GradbenchError(
            f"scores cannot be written to {printable(self.path)} ({fault.strerror or fault}): make "
            "room or rights there, or name another file with --out FILE"
        )


def scores_path(path: str | Path) -> Path:
    """Return the path that scores go to: of a new file, or in place of earlier scores.

    Links are not followed: /dev/stdout is one.

    Raises:
        GradbenchError: if something else is there, or it lies in the `model/` of a run.
    """
    path = expand_home(path)
    name = printable(path)
    if os.path.isdir(path):
        raise GradbenchError(f"{name} is a folder: name a file, --out {name}/NAME.csv")
    if os.path.lexists(path):
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise GradbenchError(
                f"{name} is a link, a device or a pipe: scores go to a file, name one with "
                "--out FILE"
            )
        with suppress(OSError), path.open("rb") as stream:
            if stream.read(len(START)) not in (START, b""):
                raise GradbenchError(
                    f"{name} is there and holds no scores: name another file with --out FILE"
                )
    whole = Path(os.path.realpath(path.parent), path.name)
    if any(p.name == "model" and os.path.isfile(p.parent / "run.json") for p in whole.parents):
        raise GradbenchError(
            f"{name} lies where a run keeps its networks: name another file with --out FILE"
        )
    return path
