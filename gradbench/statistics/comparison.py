"""Tests whether one detector is better than another, on the same images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import norm, t

from gradbench.statistics.bootstrap import BootstrapSamples, combine

BOOTSTRAP = "paired bootstrap over sources"
"""The test of `compare`, as the rows name it."""


class Difference(NamedTuple):
    """The difference of two detectors on the same images.

    `lo` and `hi` are its interval at the level at which Holm's procedure decided; `p` is two-sided,
    that there is none; `p_holm` is corrected over the differences compared with it.
    """

    value: float
    lo: float
    hi: float
    p: float
    p_holm: float


def compare(
    pairs: Sequence[tuple[BootstrapSamples, BootstrapSamples]],
    intervals: Sequence[tuple[tuple[float, float], tuple[float, float]]],
    confidence: float = 0.95,
) -> list[Difference]:
    """Compare two detectors of each pair by the spread of their paired resamples.

    p is that of a normal difference whose deviation is that of the resamples. Holm's correction
    takes the pairs given together. An interval is the difference and z deviations to both sides,
    z for the level at which Holm's procedure decided: it holds zero if, and only if, the difference
    is not significant. It is cut to what the intervals of the two detectors leave possible, so that
    detectors whose own intervals do not meet always differ (an interval of no width counts as
    none: equal resamples say nothing of the spread).

    A difference is the first less the second; `intervals` are those of both detectors as they are
    printed, and `confidence` is that of all differences together.
    """
    gaps = [combine(pair, [1, -1]) for pair in pairs]
    deviations = [float(gap.samples.std(ddof=1)) for gap in gaps]
    return decide([gap.value for gap in gaps], deviations, intervals, confidence)


def decide(
    gaps: Sequence[float],
    deviations: Sequence[float],
    intervals: Sequence[tuple[tuple[float, float], tuple[float, float]]],
    confidence: float = 0.95,
) -> list[Difference]:
    """Compare differences whose standard deviations are known, as `compare` does."""
    p = np.array([normal_p(gap, deviation) for gap, deviation in zip(gaps, deviations)])
    corrected = holm(p)
    order = np.argsort(p, kind="stable")
    significant = int((corrected < 1 - confidence).sum())
    level = np.empty(len(p))
    level[order] = (1 - confidence) / (len(p) - np.minimum(np.arange(len(p)), significant))
    width = norm.isf(level / 2) * np.asarray(deviations, dtype=np.float64)
    compared = []
    for i, ((lo, hi), (lo_other, hi_other)) in enumerate(intervals):
        low, high = gaps[i] - width[i], gaps[i] + width[i]
        if min(hi - lo, hi_other - lo_other) > 1e-9:
            low, high = max(low, lo - hi_other), min(high, hi - lo_other)
        compared.append(Difference(*map(float, (gaps[i], low, high, p[i], corrected[i]))))
    return compared


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Return p-values corrected for their number by Holm (1979), in the given order."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(stepped, 1)
    return corrected


def normal_p(difference: float, deviation: float) -> float:
    """Return the two-sided p that a difference with this standard deviation is zero."""
    if abs(difference) < 1e-12:
        return 1.0
    return float(2 * norm.sf(abs(difference) / deviation)) if deviation > 1e-12 else 0.0


def corrected_t_p(differences: np.ndarray, ratio: float) -> float:
    """Return the two-sided p of the corrected repeated k-fold paired t-test.

    t = mean / sqrt((1 / J + ratio) * variance) with J - 1 degrees of freedom: the folds share the
    images that they were fitted on, so their differences vary together (Nadeau and Bengio 2003,
    Machine Learning 52, equation 9; for repeated folds Bouckaert and Frank 2004).

    Args:
        differences: (J,) of two detectors in the folds of all repetitions, J > 1.
        ratio: images measured by those fitted on and chosen with, 1 / (k - 1) for k folds.
    """
    d = np.asarray(differences, dtype=np.float64)
    deviation = np.sqrt((1 / len(d) + ratio) * d.var(ddof=1))
    if abs(d.mean()) < 1e-12:
        return 1.0
    return float(2 * t.sf(abs(d.mean()) / deviation, len(d) - 1)) if deviation > 1e-12 else 0.0
