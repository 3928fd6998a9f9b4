"""A finished run as `show`, `report`, `tables` and `score` open it: checked, and fit to print."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradbench.errors import GradbenchError, printable
from gradbench.report import manifest
from gradbench.report.run_json import NAME, one_line, read_told
from gradbench.support.files import Damaged, read_bytes
from gradbench.support.progress import say

if TYPE_CHECKING:
    import pandas

PART = ".gradbench-part"
"""Where a run writes before it moves all to its place; with a run.json it is being moved."""
LARGEST = 2**28
"""Bytes of a table that is read."""


class Finished:
    """The folder of a finished run.

    Args:
        path: of the folder.

    Attributes:
        told: what its run.json says, every text on one line without control characters.

    Raises:
        GradbenchError: if it is half-written, or its run.json is damaged.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        if (self.path / PART / NAME).exists():
            raise GradbenchError(
                f"the run in {printable(path)} is only half-written ({PART} is left): the command "
                "that made it goes on from where it stopped"
            )
        told = read_told(self.path)
        self._files: manifest.Files | None = told.get("files")
        self.told: dict[str, Any] = one_line(told)
        self._warned = False

    def file(self, name: str) -> Path:
        """Return the path of a file that is as the run wrote it; see `manifest.check`.

        Runs of older versions list no files: that is said once, and the file is taken as it is.
        """
        if self._files is not None:
            return manifest.check(self.path, self._files, name)
        if not self._warned:
            say(
                f"{printable(self.path)} was written by an older gradbench, which noted no "
                "checksums: whether its files are whole cannot be told"
            )
            self._warned = True
        if not (self.path / name).is_file():
            raise GradbenchError(f"{printable(self.path / name)} is missing: {manifest.ANEW}")
        return self.path / name

    def has(self, name: str) -> bool:
        """Tell whether a file is there and, where files are listed, the run's own."""
        listed = self._files is None or name in self._files
        return listed and (self.path / name).is_file()

    def text(self, name: str) -> str:
        """Return the text of a file, without control characters.

        Raises:
            GradbenchError: if it is missing, broken off, edited or no text.
        """
        path = self.file(name)
        try:
            lines = read_bytes(path, LARGEST).decode("utf-8").split("\n")
        except (Damaged, ValueError) as fault:
            raise GradbenchError(f"cannot read {printable(path)}: {printable(fault)}") from fault
        return "\n".join(map(printable, lines))

    @cached_property
    def frame(self) -> pandas.DataFrame:
        """The rows of the run.

        Raises:
            GradbenchError: if its rows are missing, broken off, edited or damaged.
        """
        from gradbench.run.rows import read_csv, rows_file

        rows = read_csv(self.file(rows_file(self.path).name))
        for name in rows.select_dtypes("str"):
            known = {text: one_line(text) for text in rows[name].unique()}
            if any(text != known[text] for text in known):
                rows[name] = rows[name].map(known)
        return rows
