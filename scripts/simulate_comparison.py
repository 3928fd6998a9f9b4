"""How often the comparison of detectors is wrong, where the truth is known.

    python scripts/simulate_comparison.py results/simulation_comparison.csv

Scores are Gaussian, the abnormal ones shifted so that AUROC is 90 or 99; two detectors share 70 %
of the variance of a score, as detectors of one network do. Designs: `independent` images, measured
at once; `twins`, every abnormal image made of a normal one and sharing half of the variance with
it; `refitted`, linear detectors on one feature that says something and 20 that say nothing, fitted
anew in each of the five folds of `grouped` (difference of the class means). Every row of the CSV is
a setting, its columns are shares of repetitions in percent, of intervals of 95 %:

- coverage: the interval of the difference holds the true one of these fitted detectors; a pair two
  points apart before the fit.
- coverage_fits: it holds the mean of the true differences over all fits (`refitted` alone).
- row_2, row_10, row_20: in a row of so many equal detectors some one is called worse than the best.
- fixed_20: some one of 20 equal detectors differs from one that was named beforehand.
- folds_2: the corrected t-test over folds finds a difference between two equal ones (`refitted`).

`coverage`, `row_2` and `folds_2` are means over ten pairs in a repetition, `row_10` over two
halves. Resamples are drawn as `statistics.bootstrap.bootstrap_auroc` draws them, all detectors of a
setting with the same weights, and compared with it in the first repetition. All settings take
about a quarter of an hour of one core.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.stats import norm

from gradbench.protocols.base import Grouped
from gradbench.statistics.bootstrap import (
    BootstrapSamples,
    FoldScores,
    Sources,
    bootstrap_auroc,
    combine,
)
from gradbench.statistics.comparison import compare, corrected_t_p

COLUMNS = ("design", "auroc", "images", "repetitions", "replicates", "coverage", "coverage_fits",
           "row_2", "row_10", "row_20", "fixed_20", "folds_2")  # fmt: skip
DESIGNS = ("independent", "twins", "refitted")
REPETITIONS = {100: 2000, 500: 1000, 5000: 150}
"""By images a side."""
REPLICATES = 400
COUNT, GAP, SHARED, ALIKE, NOISE = 20, 0.02, 0.7, 0.5, 20
"""Equal detectors; AUROC that one more lacks; variance in common to detectors, and to twins;
features that say nothing."""

Weights = list[tuple[np.ndarray, np.ndarray]]
"""For every fold the weights of its normal and of its abnormal images, (n, R) each."""
Parts = list[tuple[np.ndarray, np.ndarray]]
"""For every fold the rows of its measured normal and abnormal images."""


class Setting:
    """One design at one size.

    Args:
        design: one of `DESIGNS`.
        auroc: of the equal detectors before they are fitted, a fraction.
        n: images a side.
        replicates: resamples.
        seed: of the scores.
    """

    def __init__(self, design: str, auroc: float, n: int, replicates: int, seed: int = 0):
        self.design, self.n, self.replicates = design, n, replicates
        self.rng = np.random.default_rng([seed, DESIGNS.index(design), n, round(1000 * auroc)])
        shifts = [2**0.5 * norm.ppf(one) for one in (auroc, auroc - GAP)]
        self.shifts = np.array([shifts[0]] * COUNT + [shifts[1]])
        normal = np.array([f"image/{i}" for i in range(n)])
        self.names = normal, normal if design == "twins" else np.char.add(normal, "/other")
        refitted = design == "refitted"
        self.folds = Grouped().folds(*self.names) if refitted else []
        whole = np.arange(n)
        self.parts: Parts = [(f.measure.normal, f.measure.abnormal) for f in self.folds]
        self.parts = self.parts or [(whole, whole)]
        drawn = Sources(self.scored(np.zeros((2, n)))).resample(replicates, 0)
        chunks = [weights for _, weights in drawn]
        self.weights: Weights = [
            tuple(np.concatenate([c[f][s] for c in chunks]).T.astype(np.float32) for s in (0, 1))
            for f in range(len(self.parts))
        ]

    def scored(self, scores: np.ndarray) -> list[FoldScores]:
        """Return the scores (2, n) of a detector, or (F, 2, n) of its fits, as its folds."""
        each = np.broadcast_to(scores, (len(self.parts), 2, self.n))
        return [
            FoldScores(own[0][a], self.names[0][a], own[1][b], self.names[1][b])
            for own, (a, b) in zip(each, self.parts)
        ]

    def noise(self, *shape: int) -> np.ndarray:
        """Return (*shape, 2, n) unit Gaussians, those of twins alike."""
        own = self.rng.standard_normal((*shape, 2, self.n), np.float32)
        if self.design != "twins":
            return own
        source = self.rng.standard_normal((*shape, 1, self.n), np.float32)
        return ALIKE**0.5 * source + (1 - ALIKE) ** 0.5 * own

    def repetition(self) -> tuple[np.ndarray, np.ndarray]:
        """Return scores (K, F, 2, n), and the true AUROC of every detector on other images (K,)."""
        count = len(self.shifts)
        told = SHARED**0.5 * self.noise() + (1 - SHARED) ** 0.5 * self.noise(count)
        told[:, 1] += self.shifts[:, None]
        if not self.folds:
            return told[:, None], norm.cdf(self.shifts / 2**0.5)
        features = np.concatenate([told[:, None], self.noise(count, NOISE)], axis=1)
        scores, true = [], []
        for fold in self.folds:
            sides = (features[..., 1, fold.fit.abnormal], features[..., 0, fold.fit.normal])
            weight = sides[0].mean(-1) - sides[1].mean(-1)
            flat = features.reshape(count, 1 + NOISE, -1)
            scores.append((weight[:, None] @ flat).reshape(count, 2, self.n))
            size = np.linalg.norm(weight, axis=1)
            true.append(norm.cdf(weight[:, 0] * self.shifts / (2**0.5 * size)))
        return np.stack(scores, axis=1), np.mean(true, axis=0)

    def resampled(self, scores: np.ndarray) -> BootstrapSamples:
        """Return what `sampled` does for the scores (F, 2, n) of a detector without ties."""
        values, samples = [], np.zeros(self.replicates)
        for own, (a, b), (normal, abnormal) in zip(scores, self.parts, self.weights):
            order = np.argsort(own[0][a])
            place = np.searchsorted(own[0][a][order], own[1][b])
            below = np.zeros((len(a) + 1, self.replicates), dtype=np.float32)
            np.cumsum(normal[order], axis=0, out=below[1:])
            won = np.einsum("nr,nr->r", abnormal, below[place])
            values.append(place.mean() / len(a))
            samples += won / (len(a) * len(b) * len(self.parts))
        return BootstrapSamples(np.array(values), samples)

    def run(self, repetitions: int) -> dict[str, float]:
        """Return the shares of repetitions that the columns of the CSV tell, in percent."""
        found: dict[str, list] = {name: [] for name in COLUMNS[5:]}
        held = []
        for number in range(repetitions):
            scores, true = self.repetition()
            each = [self.resampled(own) for own in scores]
            if not number:
                own = bootstrap_auroc(self.scored(scores[0]), self.replicates)
                assert np.allclose(own.samples, each[0].samples, atol=1e-5)
                assert np.allclose(own.per_fold, each[0].per_fold)
            ends = [one.interval(0.95) for one in each]
            for i in range(0, COUNT, 2):
                (gap,) = compare([(each[i], each[-1])], [(ends[i], ends[-1])])
                held.append((gap.lo, gap.hi, true[i] - true[-1]))
            for size in (2, 10, 20):
                rows = [slice(i, i + size) for i in range(0, COUNT, size)]
                wrong = [_differs(each[row], ends[row]) for row in rows]
                found[f"row_{size}"].append(np.mean(wrong))
            found["fixed_20"].append(_differs(each[:COUNT], ends[:COUNT], 0))
            if self.folds:
                gaps = [combine(each[i : i + 2], [1, -1]) for i in range(0, COUNT, 2)]
                p = [corrected_t_p(gap.per_fold, Grouped().ratio) for gap in gaps]
                found["folds_2"].append(np.mean(np.array(p) < 0.05))
        low, high, true = np.transpose(held)
        found["coverage"] = (low <= true) & (true <= high)
        if self.folds:
            found["coverage_fits"] = (low <= true.mean()) & (true.mean() <= high)
        return {name: 100 * float(np.mean(seen)) for name, seen in found.items() if len(seen)}


def _differs(
    each: Sequence[BootstrapSamples], ends: Sequence[tuple[float, float]], first: int | None = None
) -> bool:
    """Tell whether some detector of a row is told from the best, or from the one given."""
    values = [one.value for one in each]
    best = int(np.argmax(values)) if first is None else first
    others = [i for i in range(len(each)) if i != best]
    found = compare(
        [(each[i], each[best]) for i in others], [(ends[i], ends[best]) for i in others]
    )
    return any(not one.lo <= 0 <= one.hi for one in found)


def main(path: Path) -> None:
    """Run all settings and write their rows."""
    rows = []
    for design in DESIGNS:
        for auroc in (0.9, 0.99):
            for n, repetitions in REPETITIONS.items():
                shares = Setting(design, auroc, n, REPLICATES).run(repetitions)
                row = dict(zip(COLUMNS, (design, 100 * auroc, n, repetitions, REPLICATES)))
                rows.append(row | {name: f"{share:.2f}" for name, share in shares.items()})
                print(rows[-1], file=sys.stderr, flush=True)
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python scripts/simulate_comparison.py FILE.csv")
    main(Path(sys.argv[1]))
