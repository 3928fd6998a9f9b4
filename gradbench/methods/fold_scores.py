"""Fits a detector on every fold of a protocol and scores what it may be measured on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from gradbench.methods.base import Method, Outputs, Samples
from gradbench.methods.checked import check_state
from gradbench.outputs.cached_passes import CachedPasses
from gradbench.outputs.extract import select_outputs
from gradbench.outputs.perturbed import PerturbedPass

STATE_CHECK_IMAGES = 3
"""Images on which the state of a fitted detector is tried."""
PARTS = ("normal", "abnormal", "choose_normal", "choose_abnormal")


@dataclass(frozen=True)
class Scores:
    """Scores of a detector on the images of *measure* and of *choose*; higher = more abnormal."""

    normal: np.ndarray
    abnormal: np.ndarray
    choose_normal: np.ndarray
    choose_abnormal: np.ndarray


@dataclass(frozen=True)
class CleanOutputs:
    """Outputs of f for images that are never measured: `bank_reads`, and `hold_out_reads`."""

    bank: Outputs
    hold_out: Outputs


def score_folds(
    make: Callable[[], Method],
    normal: Outputs,
    abnormal: Outputs,
    folds: Sequence,
    seed: int,
    clean: CleanOutputs,
    again: Sequence[CachedPasses] | None = None,
) -> tuple[list[Scores], dict[str, Tensor]]:
    """Return a supervised detector's scores on every fold, and the fitted state of the first.

    All of it runs on one thread: the models are small, and their numbers then do not depend on the
    number of threads.

    Args:
        make: builds the detector afresh.
        normal: outputs of the clean images.
        abnormal: outputs of the challenge images.
        folds: of the protocol.
        seed: of the fit.
        clean: outputs of images outside the measurement.
        again: for detectors that perturb images: further passes over normal and abnormal ones.
    """
    sides = [SideOutputs(*side) for side in zip((normal, abnormal), again or (None, None))]
    bank = {**clean.bank, **{f"hold_out/{name}": values for name, values in clean.hold_out.items()}}
    scores, first = [], None
    with one_thread():
        for fold in folds:
            detector = make()
            fit, choose, measured = (
                (part.normal, part.abnormal) for part in (fold.fit, fold.choose, fold.measure)
            )
            choose = [side.drawn(rows, detector.drawn) for side, rows in zip(sides, choose)]
            detector.fit(bank, *(_samples(detector, sides, rows) for rows in (fit, choose)), seed)
            parts = [(side, rows) for part in (measured, choose) for side, rows in zip(sides, part)]
            scores.append(Scores(*(side.score(detector, rows) for side, rows in parts)))
            if first is None:
                first = detector.state()
                few = measured[0][:STATE_CHECK_IMAGES]
                check_state(detector, make, partial(sides[0].score, rows=few))
    return scores, first or {}


def divide_by_fold(normal: np.ndarray, abnormal: np.ndarray, folds: Sequence) -> list[Scores]:
    """Divide the scores of a detector that sees no challenge, and is fitted once, into folds."""
    return [
        Scores(
            normal[fold.measure.normal],
            abnormal[fold.measure.abnormal],
            normal[fold.choose.normal],
            abnormal[fold.choose.abnormal],
        )
        for fold in folds
    ]


@dataclass(frozen=True)
class SideOutputs:
    """Normal or abnormal images: their outputs, and further passes over them."""

    outputs: Outputs
    again: CachedPasses | None

    def score(self, detector: Method, rows: np.ndarray) -> np.ndarray:
        """Return the predictions for some images."""
        moved = {name: self.again(what, rows) for name, what in detector.perturbed_passes.items()}
        own = select_outputs(self.outputs, detector.reads)
        return detector.predict({**_rows(own, rows), **moved}).numpy()

    def drawn(self, rows: np.ndarray, count: int | None) -> np.ndarray:
        """Return at most so many of the rows, those that come first in the random order."""
        if count is None:
            return rows
        return np.sort(rows[np.argsort(self.again.order[rows])[:count]])


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Have torch and the numerical libraries compute on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)


def _rows(outputs: Outputs, rows: np.ndarray) -> Outputs:
    index = torch.from_numpy(np.asarray(rows))
    return {name: values[index] for name, values in outputs.items()}


def _samples(detector: Method, sides: list[SideOutputs], rows: list[np.ndarray]) -> Samples:
    names = detector.reads
    own = [select_outputs(side.outputs, names) if names else side.outputs for side in sides]
    joined = Samples.join(*(_rows(outputs, r) for outputs, r in zip(own, rows)))
    if any(side.again is None for side in sides):
        return joined
    size = len(rows[0])

    def perturb(one: PerturbedPass, wanted: Tensor) -> Tensor:
        of_normal = wanted.numpy() < size
        parts = wanted.numpy()[of_normal], wanted.numpy()[~of_normal] - size
        return torch.cat([s.again(one, r[part]) for s, r, part in zip(sides, rows, parts)])

    order = [torch.from_numpy(side.again.order[r]) for side, r in zip(sides, rows)]
    return replace(joined, order=torch.cat(order), passes=perturb)
