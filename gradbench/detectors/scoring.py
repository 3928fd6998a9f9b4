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


@dataclass(frozen=True)
class Clean:
    """Outputs of f for images that are never measured.

    Attributes:
        bank: of training images, for detectors with `bank_reads`.
        hold_out: of clean images f was not trained on, for detectors with `hold_out_reads`.
    """

    bank: Outputs
    hold_out: Outputs


def score_folds(
    make: Callable[[], Detector],
    normal: Outputs,
    abnormal: Outputs,
    folds: Sequence,
    seed: int,
    clean: Clean,
) -> tuple[list[Scores], dict[str, Tensor]]:
    """Return a supervised detector's scores on every fold, and the fitted state of the first.

    All of it runs on one thread: the models are small, and their numbers then do not depend on the
    number of threads.

    Args:
        make: builds the detector afresh.
        normal: outputs of the clean images.
        abnormal: outputs of the challenge images.
        folds: of the protocol, each with `fit`, `choose` and `measure` (`normal`, `abnormal`).
        seed: of the fit.
        clean: outputs of images outside the measurement.
    """
    with one_thread():
        return _fitted_by_fold(make, normal, abnormal, folds, seed, clean)


def divided(normal: np.ndarray, abnormal: np.ndarray, folds: Sequence) -> list[Scores]:
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


def _fitted_by_fold(make, normal: Outputs, abnormal: Outputs, folds, seed, clean):
    found, first = [], {}
    for number, fold in enumerate(folds):
        fit, choose = (_samples(normal, abnormal, part) for part in (fold.fit, fold.choose))
        detector = make().fit(clean.bank, fit, choose, seed)
        sides = [
            detector.score(_rows(side, rows)).numpy()
            for part in (fold.measure, fold.choose)
            for side, rows in ((normal, part.normal), (abnormal, part.abnormal))
        ]
        found.append(Scores(*sides))
        first = first if number else detector.state()
    return found, first


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


def _samples(normal: Outputs, abnormal: Outputs, part) -> Samples:
    return Samples.join(_rows(normal, part.normal), _rows(abnormal, part.abnormal))
