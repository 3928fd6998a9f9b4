"""A finished run as the report reads it: found, refused in one sentence, read once."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from gradbench.errors import GradbenchError
from gradbench.report.numbers import accuracies
from gradbench.report.papers.runs import Run, find_runs, jobs, missing_files
from gradbench.report.view import View


class Source:
    """A run to report on.

    Args:
        run: its folder, read.
        dirs: folders of the user's own configuration files.
    """

    def __init__(self, run: Run, dirs: Sequence[Path] = ()):
        self.run, self.path = run, run.path
        self.about: Mapping[str, Any] = run.about
        self._dirs = dirs

    @property
    def told(self) -> Mapping[str, Any]:
        """Everything in run.json: about, config, versions, code, hardware, data, networks, time."""
        return self.run.told

    @cached_property
    def view(self) -> View:
        """The rows of the run, all measures with their intervals."""
        return View(self.run.frame, self.run.protocol, intervals=True)

    @property
    def seeds(self) -> list[str]:
        """Seeds of the networks."""
        return list(self.about["accuracy"])

    @property
    def network(self) -> str:
        """Backbone, width and seeds: what tells the network of one run from that of another."""
        width = f", width {self.about['width']}" if self.about["width"] else ""
        seeds = f"seed{'s' * (len(self.seeds) > 1)} {', '.join(self.seeds)}"
        return f"{self.about['backbone']}{width}, {seeds}"

    @property
    def accuracy(self) -> str:
        """Test accuracy of each network in percent."""
        return accuracies(self.about)

    @property
    def place(self) -> str:
        """The name of its folder, "" where that is the name of the experiment."""
        return self.path.name if self.path.name != self.about["experiment"] else ""

    @property
    def title(self) -> str:
        """What captions call the run, so that no two are mistaken for each other."""
        where = f", {self.place}" if self.place else ""
        return f"{self.about['experiment']} ({self.network}){where}"

    @cached_property
    def marks(self) -> list[str]:
        """What sets all numbers of the run apart from published ones."""
        sizes = self.run.narrower(self._dirs)
        found = [f"{self.about['backbone']} of {sizes}, as configured"] if sizes else []
        return found + self.run.image_notes()


def find(folders: Sequence[Path], dirs: Sequence[Path] = ()) -> list[Source]:
    """Return the finished runs in folders and below, by path.

    Raises:
        GradbenchError: if there is none, or one is damaged.
    """
    runs = sorted(find_runs(folders), key=lambda run: str(run.path))
    if not runs:
        raise GradbenchError(
            f"no finished run under {' or '.join(map(str, folders))}: `gradbench run "
            "experiment=quickstart out=results/quickstart` makes one, results=DIR names another "
            "folder"
        )
    return [Source(run, dirs) for run in runs]


def read(paths: Sequence[Path], dirs: Sequence[Path] = ()) -> list[Source]:
    """Return the runs in these very folders, each once; the folder of a sweep stands for its runs.

    Raises:
        GradbenchError: for a folder that is not there, holds no run, or only a part of one.
    """
    every = (run for path in paths for run in jobs(path) or [path])
    there = {os.path.realpath(path): path for path in every}
    for path in there.values():
        _check(path)
    return [Source(Run(path), dirs) for path in there.values()]


def _check(path: Path) -> None:
    if not os.path.isdir(path):
        raise GradbenchError(f"{path}: there is no such folder, nor a run named so in outputs/")
    missing = missing_files(path)
    if len(missing) == 1:
        raise GradbenchError(
            f"the run in {path} is only half-written ({missing[0]} missing): the command that made "
            "it goes on from where it stopped"
        )
    if not missing:
        return
    inside = len(find_runs([path]))
    hint = f"results={path} takes the {inside} below it" if inside else "name one that `run` wrote"
    raise GradbenchError(f"{path} is no folder of a run: {hint}")
