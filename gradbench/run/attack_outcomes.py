"""What an attack did, as numbers for rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from gradbench.challenges.produce import AttackOutcome

FOOLED = "of those, taken for another class after"


class Deed(NamedTuple):
    """One number: what it is, its value and unit, of how many images, and a note."""

    metric: str
    value: float
    unit: str
    count: int
    note: str


def deeds(attack: AttackOutcome) -> list[Deed]:
    """Return counts, success in percent, and the size of the perturbations.

    Sizes are those of all images and of the successful ones, none of the latter without success.
    """
    attempted, correct = len(attack.success), int(attack.correct.sum())
    successful = int(attack.success.sum())
    rate = 100 * successful / correct if correct else float("nan")
    found = [
        Deed("attempted", attempted, "images", attempted, ""),
        Deed("correct", correct, "images", attempted, "classified correctly before"),
        Deed("successful", successful, "images", correct, FOOLED),
        Deed("attack_success", rate, "percent", correct, "of images classified correctly before"),
    ]
    unit = "pixels in [0, 1]"
    for end, of, rows, count in (
        ("", "images", slice(None), attempted),
        ("_successful", "successful images", attack.success, successful),
    ):
        if count:
            l2, linf = float(attack.l2[rows].mean()), float(attack.linf[rows].max())
            found.append(Deed(f"l2{end}", l2, unit, count, f"mean over {of}"))
            found.append(Deed(f"linf{end}", linf, unit, count, f"largest of all {of}"))
    return found
