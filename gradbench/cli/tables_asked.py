"""A command line of `gradbench tables`, read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FOLDERS = ("outputs", "results")


@dataclass
class Asked:
    """What is asked for.

    Attributes:
        names: of the tables.
        folders: that runs are looked for in, empty for the usual ones.
        format: of the tables, "" for all that are files.
        out: folder to write to, None for the terminal.
        given: settings of the runs.
        only: experiment and backbone that runs are restricted to.
        dirs: folders of the user's own configuration files.
        plan: whether to tell what is missing.
        run: whether to make it first.
    """

    names: list[str]
    folders: list[Path]
    format: str
    out: Path | None
    given: list[str]
    only: dict[str, str]
    dirs: list[Path]
    plan: bool = False
    run: bool = False

    @property
    def options(self) -> list[str]:
        """Options of Hydra that go to every run."""
        return [f"--config-dir={folder}" for folder in self.dirs]

    @property
    def places(self) -> list[Path]:
        """Folders that runs are looked for in; those that are made go to the first."""
        return self.folders or [Path(name) for name in FOLDERS]
