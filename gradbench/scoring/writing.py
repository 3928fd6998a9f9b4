"""Writes the scores of any number of pictures to a CSV file, which is there when it is whole."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from gradbench.errors import GradbenchError
from gradbench.scoring.scorer import ABNORMAL, VERDICT

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
        path: of the file; folders above it are made, a file that is there is replaced.

    Raises:
        GradbenchError: if it cannot be written.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path).expanduser()
        if self.path.is_dir():
            raise GradbenchError(
                f"{self.path} is a folder: name a file, --out {self.path}/NAME.csv"
            )
        self._part = self.path.with_name(f".{self.path.name}.{os.getpid()}.part")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # file names may hold bytes that are no text
            how = {"newline": "", "encoding": "utf-8", "errors": "surrogateescape"}
            self._stream = self._part.open("w", **how)
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
            GradbenchError: if it cannot be written.
        """
        summary = Summary(self.path)
        for frame in frames:
            try:
                frame.to_csv(self._stream, index=False, header=not summary.pictures)
            except OSError as fault:
                raise self._refused(fault) from fault
            summary.add(frame)
        try:
            self._stream.close()
            os.replace(self._part, self.path)
        except OSError as fault:
            raise self._refused(fault) from fault
        return summary

    def _refused(self, fault: OSError) -> GradbenchError:
        reason = fault.strerror or str(fault)
        return GradbenchError(
            f"scores cannot be written to {self.path} ({reason}): make room or rights there, or "
            "name another file with --out FILE"
        )
