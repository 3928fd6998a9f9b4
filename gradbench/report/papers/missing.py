"""What tables lack, why, and the runs that would fill their holes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from gradbench.config import compose, group_files, load_member
from gradbench.data.dataset import DataSettings
from gradbench.report.papers.fill import NOT_BUILT, FilledTable

COMES = "would be downloaded"
"""Part of a data set's reason for not being here yet."""


@dataclass
class MissingRun:
    """A run that tables ask for.

    Attributes:
        cells: how many are empty now and would be filled.
        absent: reason -> cells that would stay empty, for want of images.
        detectors: that the tables want of it.
        challenges: that it is asked for, empty for those of the experiment.
        alternatives: challenges that may stand in for each other, by preference.
    """

    experiment: str
    in_dist: str
    backbone: str
    protocol: str
    cells: int = 0
    absent: Counter[str] = field(default_factory=Counter)
    detectors: dict[str, None] = field(default_factory=dict)
    challenges: list[str] = field(default_factory=list)
    alternatives: dict[tuple[str, ...], None] = field(default_factory=dict)

    def arguments(self, given: Sequence[str] = ()) -> list[str]:
        """Return the arguments of `gradbench run`; the user's own replace those of the table."""
        own = {key: getattr(self, key) for key in ("experiment", "backbone", "protocol")}
        own["detectors"] = f"[{','.join(self.detectors)}]"
        if self.challenges:
            own["challenges"] = f"[{','.join(self.challenges)}]"
        taken = {word.split("=", 1)[0].lstrip("+") for word in given}
        return [*(f"{key}={value}" for key, value in own.items() if key not in taken), *given]

    def folder(self, root: Path, given: Sequence[str], dirs: Sequence[Path]) -> Path:
        """Return the folder of the run, one for each network, protocol, part and seed."""
        config = compose(self.arguments(given), dirs)
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


def summary(filled: FilledTable) -> list[str]:
    """Return how many cells of a table are measured, and how many are not for each reason."""
    cells = filled.cells[~filled.cells.index.duplicated()]
    reasons = Counter(cells["reason"][cells["reason"] != ""])
    lines = [f"{filled.table.name}: {len(cells) - reasons.total()} of {len(cells)} cells measured"]
    if marked := (cells["marks"] != "").sum():
        lines[0] += f", {marked} with a mark"
    unbuilt = {reason: n for reason, n in reasons.items() if reason.startswith(NOT_BUILT)}
    if unbuilt:
        names = ", ".join(reason.removeprefix(f"{NOT_BUILT}: ") for reason in unbuilt)
        lines.append(f"  {sum(unbuilt.values())} {NOT_BUILT}: {names}")
    return lines + [f"  {n} {reason}" for reason, n in reasons.items() if reason not in unbuilt]


def missing_runs(
    tables: Iterable[FilledTable], dirs: Iterable[Path], data: DataSettings
) -> list[MissingRun]:
    """Return the runs that the empty cells of tables ask for, each once.

    A cell asks for its most preferred experiment that is there, on an in-distribution set whose
    images are at hand if there is one. A run is asked for all that its tables want of it: what
    finished runs have done already lies in the store. Where challenges may stand in for each other,
    it is asked for those that would be downloaded and for the first that is on this machine.
    """
    dirs = tuple(dirs)
    built = {group: list(group_files(group, dirs)) for group in ("detector", "experiment")}
    images = _Images(dirs, data)
    found: dict[tuple[str, ...], MissingRun] = {}
    for filled in tables:
        places = filled.table.places
        there = places[places["method"].isin(built["detector"])
                       & places["experiment"].isin(built["experiment"])]  # fmt: skip
        empty = filled.cells["reason"].groupby(level=0).first() != ""
        for cell, own in there.groupby("cell"):
            at_hand = own[[not images.no_training(name) for name in own["in_dist"]]]
            first = (own if at_hand.empty else at_hand).iloc[0]
            names = (first["experiment"], first["in_dist"], first["backbone"])
            names += filled.table.protocols[:1]
            run = found.setdefault(names, MissingRun(*names))
            same = places[(places["cell"] == cell) & (places["in_dist"] == first["in_dist"])
                          & (places["backbone"] == first["backbone"])]  # fmt: skip
            choice = tuple(dict.fromkeys(same["challenge"]))
            run.alternatives[choice] = None
            run.detectors[first["method"]] = None
            if not empty[cell]:
                continue
            absent = images.no_training(first["in_dist"]) or images.no_challenge(choice)
            run.absent[absent] += bool(absent)
            run.cells += not absent
    asked = [run for run in found.values() if run.cells or run.absent.total()]
    for run in asked:
        run.absent = +run.absent
        if any(len(choice) > 1 for choice in run.alternatives):
            wanted = (name for choice in run.alternatives for name in images.wanted(choice))
            run.challenges = list(dict.fromkeys(wanted))
    return asked


class _Images:
    """Which images are here, or would come."""

    def __init__(self, dirs: tuple[Path, ...], data: DataSettings):
        self.dirs, self.data = dirs, data
        self._reason = cache(self._look)

    def no_training(self, in_dist: str) -> str:
        """Return why no network can be trained and tested on a set, "" if one can."""
        reasons = (self._reason(in_dist, role) for role in ("train", "test"))
        return next((r for r in reasons if r and COMES not in r), "")

    def no_challenge(self, choice: tuple[str, ...]) -> str:
        """Return why none of some challenges can be measured, "" if one can."""
        reasons = [self._challenge(name) for name in choice]
        return "" if any(not r or COMES in r for r in reasons) else reasons[0]

    def wanted(self, choice: tuple[str, ...]) -> list[str]:
        """Return what to ask for: what would be downloaded, and the first that is here."""
        reasons = {name: self._challenge(name) for name in choice}
        here = [name for name, reason in reasons.items() if not reason][:1]
        before = choice[: choice.index(here[0])] if here else choice
        known = group_files("challenge", self.dirs)
        wanted = [*(name for name in before if COMES in reasons[name]), *here]
        return wanted or [name for name in choice if name in known][:1]

    def _challenge(self, name: str) -> str:
        # what has no file is a member of a suite, and made from clean images
        known = name in group_files("challenge", self.dirs)
        dataset = load_member("challenge", name, self.dirs).get("dataset") if known else ""
        return self._reason(dataset, "challenge") if dataset else ""

    def _look(self, name: str, role: str) -> str:
        """Return a short reason why images are not here, "" if they are."""
        from gradbench.data.in_distribution import why_scarce
        from gradbench.support.instantiate import instantiate

        if name not in group_files("dataset", self.dirs):
            return f"{name}: no such dataset"
        content = load_member("dataset", name, self.dirs)
        dataset = instantiate("dataset", name, content, drop=("_target_",))
        if reason := dataset.ready(role, self.data):
            return f"{name} ({role}): {reason}"
        if role != "train":
            return ""
        split = next(s for s in dataset.splits("train") if dataset.is_local(s, self.data))
        count, _ = dataset.count(split, self.data)
        return "" if count is None else why_scarce(dataset, split, count, self.data)
