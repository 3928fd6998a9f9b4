"""The outcome of an attack as rows: counts, success, and the size of its perturbations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from gradbench.run.rows import row

if TYPE_CHECKING:
    from gradbench.challenges.produce import AttackOutcome

FOOLED = "of those, taken for another class after"


class AttackNumber(NamedTuple):
    """One number of an attack, with its unit, the count of images behind it, and a note."""

    metric: str
    value: float
    unit: str
    count: int
    note: str


def attack_numbers(attack: AttackOutcome) -> list[AttackNumber]:
    """Return counts, success in percent, and the size of the perturbations.

    Sizes are those of all images and of the successful ones, none of the latter without success.
    """
    attempted, correct = len(attack.success), int(attack.correct.sum())
    successful = int(attack.success.sum())
    rate = 100 * successful / correct if correct else float("nan")
    found = [
        AttackNumber("attempted", attempted, "images", attempted, ""),
        AttackNumber("correct", correct, "images", attempted, "classified correctly before"),
        AttackNumber("successful", successful, "images", correct, FOOLED),
        AttackNumber(
            "attack_success", rate, "percent", correct, "of images classified correctly before"
        ),
    ]
    unit = "pixels in [0, 1]"
    for end, of, rows, count in (
        ("", "images", slice(None), attempted),
        ("_successful", "successful images", attack.success, successful),
    ):
        if count:
            l2, linf = float(attack.l2[rows].mean()), float(attack.linf[rows].max())
            found.append(AttackNumber(f"l2{end}", l2, unit, count, f"mean over {of}"))
            found.append(AttackNumber(f"linf{end}", linf, unit, count, f"largest of all {of}"))
    return found


def attack_rows(numbers: Iterable[AttackNumber], common: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of an attack's numbers; `common` names network and challenge."""
    return [
        row(
            **common,
            role="attack",
            challenge_set="adversarial",
            source="generated",
            method=common["challenge"],
            fold="all",
            metric=number.metric,
            value=float(number.value),
            n_abnormal=number.count,
            unit=number.unit,
            note=number.note,
        )
        for number in numbers
    ]
