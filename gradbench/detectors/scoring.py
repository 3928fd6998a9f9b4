"""Fits a detector on every fold of a protocol and scores what it may be measured on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from gradbench.detectors.base import Detector, Outputs, Samples

PARTS = ("normal", "abnormal", "choose_normal", "choose_abnormal")


@dataclass(frozen=True)
class Scores:
    """Scores of a detector on one fold, higher = more likely abnormal.

    Attributes:
        normal: of the normal images of *measure*.
        abnormal: of the abnormal images of *measure*.
        choose_normal: of the normal images of *choose*.
        choose_abnormal: of the abnormal images of *choose*.
    """

    normal: np.ndarray
    abnormal: np.ndarray
    choose_normal: np.ndarray
    choose_abnormal: np.ndarray


def score_folds(
    make: Callable[[], Detector],
    normal: Outputs,
    abnormal: Outputs,
    folds: Sequence,
    seed: int,
    bank: Outputs | None = None,
) -> tuple[list[Scores], dict[str, Tensor]]:
    """Return the scores on every fold, and the fitted state of the first.

    A detector that never looks at challenges is fitted once. All of it runs on one thread: the
    models are small, and their numbers then do not depend on the number of threads.

    Args:
        make: builds the detector afresh.
        normal: outputs of the clean images.
        abnormal: outputs of the challenge images.
        folds: of the protocol, each with `fit`, `choose` and `measure` (`normal`, `abnormal`).
        seed: of the fit.
        bank: outputs of training images, for detectors that read them.
    """
    with _one_thread():
        return _score_folds(make, normal, abnormal, folds, seed, bank)


def _score_folds(make, normal: Outputs, abnormal: Outputs, folds: Sequence, seed: int, bank):
    detector = make()
    if not detector.learns_from_challenges:
        detector.fit(bank or {}, _samples(normal, abnormal, folds[0].fit),
                     _samples(normal, abnormal, folds[0].choose), seed)  # fmt: skip
        every = [detector.score(side).numpy() for side in (normal, abnormal)]
        return [
            Scores(
                every[0][fold.measure.normal],
                every[1][fold.measure.abnormal],
                every[0][fold.choose.normal],
                every[1][fold.choose.abnormal],
            )
            for fold in folds
        ], detector.state()
    found, first = [], {}
    for number, fold in enumerate(folds):
        detector = make().fit(
            bank or {},
            _samples(normal, abnormal, fold.fit),
            _samples(normal, abnormal, fold.choose),
            seed,
        )
        found.append(
            Scores(
                *(
                    detector.score(_rows(side, rows)).numpy()
                    for part in (fold.measure, fold.choose)
                    for side, rows in ((normal, part.normal), (abnormal, part.abnormal))
                )
            )
        )
        first = first if number else detector.state()
    return found, first


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
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


def _samples(normal: Outputs, abnormal: Outputs, part) -> Samples:
    return Samples.join(_rows(normal, part.normal), _rows(abnormal, part.abnormal))
