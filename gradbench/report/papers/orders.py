"""The runs that would fill the empty cells of tables: settings, and what stands in their way."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from gradbench.config import compose, group_files, load_member
from gradbench.data.settings import DataSettings
from gradbench.report.papers.fill import Filled, Filling
from gradbench.report.papers.rules import Place

if TYPE_CHECKING:
    from gradbench.data.dataset import Dataset

COMES = "would be downloaded"
"""Part of a data set's reason for not being here yet."""


@dataclass
class Order:
    """A run that tables ask for.

    Attributes:
        experiment: its name.
        in_dist: in-distribution set.
        backbone: network.
        protocol: of the run.
        cells: that are empty now and would be filled.
        absent: reason -> cells that would stay empty, for want of images.
        detectors: that the tables want of it.
        challenges: that it is asked for, empty for those of the experiment.
        choices: for challenges that may stand in for each other: all of them, by preference.
    """

    experiment: str
    in_dist: str
    backbone: str
    protocol: str
    cells: int = 0
    absent: dict[str, int] = field(default_factory=dict)
    detectors: list[str] = field(default_factory=list)
    challenges: list[str] = field(default_factory=list)
    choices: dict[tuple[str, ...], None] = field(default_factory=dict)

    def words(self, given: Sequence[str] = ()) -> list[str]:
        """Return the words of `gradbench run`; what the user gives goes before the table's own."""
        own = {
            "experiment": self.experiment,
            "backbone": self.backbone,
            "protocol": self.protocol,
            "detectors": _list(self.detectors),
        }
        if self.challenges:
            own["challenges"] = _list(self.challenges)
        taken = {word.split("=", 1)[0].lstrip("+") for word in given}
        return [*(f"{key}={value}" for key, value in own.items() if key not in taken), *given]

    def out(self, root: Path, given: Sequence[str], dirs: Sequence[Path]) -> Path:
        """Return the folder of the run, one for each network, protocol, part and seed."""
        config = compose(self.words(given), dirs)
        network, usual = config["backbone"], compose([f"backbone={self.backbone}"], dirs)
        parts = [self.experiment, network["name"]]
        for key in ("width", "depth", "growth"):
            if key in network and network[key] != usual["backbone"].get(key):
                parts.append(f"{key}{network[key]}")
        parts += [] if config["limit"] is None else [f"limit{config['limit']}"]
        parts += [] if self.protocol == "grouped" else [self.protocol]
        seeds = config["seeds"] or [config["seed"]]
        parts += [] if seeds == [0] else ["seed" + "-".join(map(str, seeds))]
        return root / "tables" / re.sub(r"[^\w.=-]+", "-", "_".join(parts))


def orders(fillings: Iterable[Filling], dirs: Iterable[Path], data: DataSettings) -> list[Order]:
    """Return the runs that the empty cells of tables ask for, each once.

    A cell asks for its most preferred experiment that is there. A run is asked for all that its
    tables want of it: what finished runs have done already lies in the store. Where challenges may
    stand in for each other, it is asked for those that would be downloaded and for the first that
    is on this machine.

    Args:
        fillings: tables as finished runs fill them.
        dirs: folders of the user's own configuration files.
        data: where images are looked for.
    """
    dirs = tuple(dirs)
    built = {g: set(group_files(g, dirs)) for g in ("detector", "experiment", "dataset")}
    sets = _Sets(dirs, data)
    found: dict[tuple[str, ...], Order] = {}
    for filling in fillings:
        for cell in filling.cells:
            reached = _reachable(cell, built, sets)
            if reached is None:
                continue
            place, experiment = reached
            names = (experiment, place.in_dist, place.backbone, filling.table.protocols[0])
            order = found.setdefault(names, Order(*names))
            choice = _choices(cell, place)
            order.choices[choice] = None
            if cell.wanted.detector not in order.detectors:
                order.detectors.append(cell.wanted.detector)
            if cell.numbers:
                continue
            absent = sets.train(place.in_dist) or sets.challenge(choice)
            if absent:
                order.absent[absent] = order.absent.get(absent, 0) + 1
            else:
                order.cells += 1
    asked = [order for order in found.values() if order.cells or order.absent]
    for order in asked:
        if any(len(choice) > 1 for choice in order.choices):
            picked = [sets.picked(choice) for choice in order.choices]
            order.challenges = list(dict.fromkeys(name for names in picked for name in names))
    return asked


class _Sets:
    """What images are here, or would come."""

    def __init__(self, dirs: tuple[Path, ...], data: DataSettings):
        self.dirs, self.data = dirs, data
        self._known: dict[tuple[str, str], str] = {}

    def train(self, in_dist: str) -> str:
        """Return why no network can be trained and tested on a set, "" if one can."""
        reasons = (self._state(in_dist, role) for role in ("train", "test"))
        return next((r for r in reasons if r and COMES not in r), "")

    def challenge(self, choice: tuple[str, ...]) -> str:
        """Return why none of some challenges can be measured, "" if one can."""
        states = [self._challenge(name) for name in choice]
        return "" if any(not s or COMES in s for s in states) else states[0]

    def picked(self, choice: tuple[str, ...]) -> list[str]:
        """Return what to ask for: what would be downloaded, and the first that is here."""
        states = {name: self._challenge(name) for name in choice}
        here = [name for name, state in states.items() if not state][:1]
        before = choice[: choice.index(here[0])] if here else choice
        known = group_files("challenge", self.dirs)
        return [*(n for n in before if COMES in states[n]), *here] or [
            name for name in choice if name in known
        ][:1]

    def _challenge(self, name: str) -> str:
        files = group_files("challenge", self.dirs)
        # what is no file is a member of a suite, and made from clean images
        dataset = load_member("challenge", name, self.dirs).get("dataset") if name in files else ""
        return self._state(dataset, "challenge") if dataset else ""

    def _state(self, name: str, role: str) -> str:
        """Return a short reason why images are not here, "" if they are."""
        from gradbench.support.instantiate import instantiate

        if (name, role) not in self._known:
            if name not in group_files("dataset", self.dirs):
                state = f"{name}: no such dataset"
            else:
                content = load_member("dataset", name, self.dirs)
                dataset = instantiate("dataset", name, content, drop=("_target_",))
                reason = dataset.ready(role, self.data)
                state = f"{name} ({role}): {reason}" if reason else ""
                if role == "train" and not reason:
                    state = self._scarce(dataset)
            self._known[name, role] = state
        return self._known[name, role]

    def _scarce(self, dataset: Dataset) -> str:
        from gradbench.data.in_distribution import why_scarce

        split = next(s for s in dataset.splits("train") if dataset.is_local(s, self.data))
        count, _ = dataset.count(split, self.data)
        return "" if count is None else why_scarce(dataset, split, count, self.data)


def _reachable(cell: Filled, built: dict[str, set[str]], sets: _Sets) -> tuple[Place, str] | None:
    """Return the place and the experiment in which a cell would be measured, if in any.

    In-distribution sets that are at hand go before those that are not.
    """
    if cell.wanted.hole or cell.wanted.detector not in built["detector"]:
        return None
    there = [
        (place, name)
        for place in cell.wanted.places
        for name in place.experiments
        if name in built["experiment"]
    ]
    can = [one for one in there if not sets.train(one[0].in_dist)]
    return next(iter([*can, *there]), None)


def _choices(cell: Filled, place: Place) -> tuple[str, ...]:
    """Return the challenges that may be measured for a cell on the ground of a place."""
    ground = (place.in_dist, place.backbone)
    same = [p for p in cell.wanted.places if (p.in_dist, p.backbone) == ground]
    return tuple(dict.fromkeys(p.challenge for p in same))


def _list(names: Iterable[str]) -> str:
    return f"[{','.join(names)}]"
