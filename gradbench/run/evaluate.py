"""Evaluates a case: the function of its role, and its result."""

from __future__ import annotations

from collections.abc import Mapping

from gradbench.run import controls, measurement
from gradbench.run.cases import Case
from gradbench.run.context import NetworkContext
from gradbench.run.measurement import CaseResult, Measure

EVALUATE: Mapping[str, Measure] = {
    "main": measurement.main,
    "transfer": measurement.transfer,
    "identity": controls.identity,
    "random_labels": controls.random_labels,
    "round_trip": controls.round_trip,
    "random_split": controls.random_split,
    "memorisation": controls.memorisation,
    "threshold": controls.threshold,
}
"""The function of each role: a new control is one more role here and in `cases`."""


def evaluate(case: Case, context: NetworkContext) -> CaseResult | None:
    """Return the result of a case; every product that the store holds is taken from there.

    A fault of a detector from outside, and a challenge that cannot be measured, are results: the
    other cases go on.

    Returns:
        None where there is nothing to measure: the challenge is missing, as the run says once, or
        a control does not apply to these images.

    Raises:
        GradbenchError: if the identity control fails, or a product cannot be made.
    """
    return measurement.settle(case, context, EVALUATE[case.role])
