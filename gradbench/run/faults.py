"""Faults of detectors from outside: a row that says why, and the run goes on with the others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gradbench.errors import Faulty, GradbenchError
from gradbench.run.experiment import Cell, Experiment
from gradbench.run.results import Results
from gradbench.support.code_keys import is_external
from gradbench.support.external import describe_exception, external_line
from gradbench.support.instantiate import imported_targets
from gradbench.support.progress import say


@contextmanager
def others_go_on(
    results: Results,
    seed: int,
    cell: Cell | None,
    name: str,
    kind: str | None = None,
    role: str = "main",
) -> Iterator[None]:
    """Do what belongs to one detector; its fault becomes a row and is said once.

    Args:
        results: of the run.
        seed: of the network.
        cell: what it is measured on; None where a fault leaves no hole in a table.
        name: of the detector as its rows call it.
        kind: `challenge_set` of the row, where not the challenge's.
        role: of the row.
    """
    try:
        yield
    except GradbenchError as fault:
        if not isinstance(fault, Faulty):
            raise
        _note(results, seed, cell, name, kind, role, str(fault))
    except Exception as fault:  # from a property of its class, say
        if not (from_outside(results.experiment, name) and external_line(fault)):
            raise
        _note(results, seed, cell, name, kind, role, f"detector {name} {describe_exception(fault)}")


def from_outside(experiment: Experiment, name: str) -> bool:
    """Tell whether a detector, or what builds it, is not gradbench's."""
    base = name.partition("@")[0]
    target = experiment.detectors[base]["_target_"]
    return is_external(*imported_targets(target), experiment.detector(base))


def check_some(results: Results) -> None:
    """Refuse a run in which faults left no number of any detector.

    Raises:
        GradbenchError: with the faults.
    """
    measured = any(row["metric"] == "auroc" for row in results.rows)
    if results.faults and not measured:
        raise GradbenchError("; ".join(dict.fromkeys(results.faults.values())))


def _note(results: Results, seed, cell: Cell | None, name: str, kind, role, reason: str) -> None:
    if cell is not None:
        results.add_hole(seed, cell, reason, kind, name, role)
    if name not in results.faults:
        say(f"{name} is left out{f' on {cell.title}' if cell else ''}: {reason}")
    results.faults[name] = reason
