"""Everything that a run measures, as a list of cases: main table, transfer, controls, thresholds.

A case names what is measured and holds no images. `evaluate` turns one into a result, `plan` asks
the store which results are there already: both go over the same list.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gradbench.challenges.controls import Identity
from gradbench.challenges.other_set import OtherSet
from gradbench.protocols.presets import Transfer
from gradbench.run.experiment import Cell, Experiment

IDENTITY = Cell("identity", Identity())
RANDOM_LABELS = Cell("random_labels", Identity())
MEMORISATION = Cell("memorisation", Identity())
THRESHOLD = Cell("threshold", Identity())


@dataclass(frozen=True)
class Case:
    """One method measured in one way.

    Attributes:
        role: why it is measured, one of `evaluate.ROLES`; `threshold` cases have no rows: they are
            for new images.
        cell: challenge and level; of a control without a challenge, its name.
        method: name of the detector.
        fitted_on: the challenge that a detector was fitted on, where that is not `cell` by itself.
    """

    role: str
    cell: Cell
    method: str
    fitted_on: Cell | None = None

    @property
    def title(self) -> str:
        """The name of the method in rows; `gradient@svhn` was fitted on another challenge."""
        on_another = self.role == "transfer" and self.fitted_on
        return f"{self.method}@{self.fitted_on.title}" if on_another else self.method


def cases(experiment: Experiment) -> list[Case]:
    """Return all cases of one network, those that share images beside each other.

    The result of a case does not depend on their order; a run of any number of challenges holds the
    images of one at a time because of it.
    """
    every = [
        *(case for cell in experiment.cells for case in _of_challenge(experiment, cell)),
        *_transfers(experiment),
        *_of_clean_images(experiment),
    ]
    if experiment.task.has_controls:
        return every
    return [case for case in every if case.role in ("main", "transfer")]


def learning(experiment: Experiment) -> list[str]:
    """Return the names of the detectors that learn from challenges."""
    return [n for n in experiment.detectors if experiment.detector(n).learns_from_challenges]


def _of_challenge(experiment: Experiment, cell: Cell) -> Iterator[Case]:
    wanted, across = experiment.settings.controls, isinstance(experiment.protocol, Transfer)
    learns = learning(experiment)
    for name in (*experiment.refused, *experiment.detectors):
        if not (across and name in learns):
            yield Case("main", cell, name)
    if across:  # how well it does at home, to compare with
        yield from (Case("transfer", cell, name, cell) for name in learns)
    if wanted.round_trip and isinstance(cell.challenge, OtherSet):
        yield from (Case("round_trip", cell, name) for name in experiment.detectors)
    if wanted.random_split and experiment.protocol.ungrouped() is not None:
        yield from (Case("random_split", cell, name) for name in learns)


def _transfers(experiment: Experiment) -> Iterator[Case]:
    if isinstance(experiment.protocol, Transfer):
        for cell in experiment.cells:
            for other in experiment.cells:
                if other != cell:
                    for name in learning(experiment):
                        yield Case("transfer", cell, name, other)


def _of_clean_images(experiment: Experiment) -> Iterator[Case]:
    wanted, learns = experiment.settings.controls, learning(experiment)
    if wanted.identity:
        yield from (Case("identity", IDENTITY, name) for name in experiment.detectors)
    if wanted.random_labels:
        yield from (Case("random_labels", RANDOM_LABELS, name) for name in learns)
    if wanted.memorisation:
        yield from (Case("memorisation", MEMORISATION, name) for name in experiment.detectors)
    if experiment.settings.model.hold_out:
        # in the model's folder there is one network: those that compare several judge no new images
        for name in (n for n in experiment.detectors if n not in experiment.comparing):
            for cell in experiment.cells if name in learns else (None,):
                yield Case("threshold", THRESHOLD, name, cell)
