"""Pictures of challenges: each kind is drawn in its own way."""

from __future__ import annotations

from pathlib import Path

from gradbench.challenges.base import Derived
from gradbench.challenges.other_set import OtherSet
from gradbench.errors import GradbenchError
from gradbench.run.experiment import Cell, Experiment
from gradbench.showing.attacks import show_attacks
from gradbench.showing.choice import Choice
from gradbench.showing.levels import show_levels
from gradbench.showing.other_sets import show_sets
from gradbench.store import Store


def show_challenge(
    experiment: Experiment, store: Store, choice: Choice, path: Path, asked: str
) -> None:
    """Draw images before and after every challenge of an experiment.

    Corruptions have a column for each level, attacks one for the perturbation, other sets one for
    the images as they were before they were brought to shape.

    Args:
        experiment: with the challenges and all settings.
        store: where trained networks lie.
        choice: of the images.
        path: of the PNG.
        asked: what the user called the challenges.

    Raises:
        GradbenchError: if challenges of several kinds are asked for, an attack has no network, or
            the picture cannot be written.
        MissingData: if images are not here.
    """
    draw = {"set": show_sets, "attack": show_attacks, "images": show_levels}
    kinds = {_kind(cell): cell.name for cell in experiment.cells}
    if not kinds:
        raise GradbenchError("challenge=: name a challenge, `gradbench list challenges` tells all")
    if len(kinds) > 1:
        raise GradbenchError(
            f"{' and '.join(kinds.values())} are shown in different columns: ask for one at a time"
        )
    draw[next(iter(kinds))](experiment, store, choice, path, asked)


def _kind(cell: Cell) -> str:
    if isinstance(cell.challenge, OtherSet):
        return "set"
    attack = isinstance(cell.challenge, Derived) and cell.challenge.uses_network
    return "attack" if attack else "images"
