"""Inequalities between the metrics: checks on every row, and bounds carried from AUROC."""

import numpy as np

from gradbench.errors import GradbenchError


def auroc_bounds(accuracy: float) -> tuple[float, float]:
    """Return the AUROCs that a best detection accuracy allows.

    With J = 2 * accuracy - 1: J <= AUROC <= 1 - (1 - J)^2 / 2 (methods.md, a.9). Both ends are
    concave in J or linear, so the bounds hold for means over folds as well.

    Args:
        accuracy: largest (TPR + TNR) / 2 over thresholds, a fraction.
    """
    j = 2 * accuracy - 1
    return j, 1 - (1 - j) ** 2 / 2


def check_bounds(auroc: float, accuracy: float, n: int, fpr95: float | None = None) -> None:
    """Stop where AUROC, best detection accuracy and FPR95 of the same images contradict.

    Args:
        auroc: a fraction.
        accuracy: best detection accuracy, a fraction.
        n: images measured; the tolerance is 1 / n.
        fpr95: of either side; 1 - accuracy <= (0.05 + fpr95) / 2.

    Raises:
        GradbenchError: naming the numbers; the scores or their labels were mixed up.
    """
    low, high = auroc_bounds(accuracy)
    if not low - 1 / n <= auroc <= high + 1 / n:
        raise GradbenchError(
            f"AUROC {auroc:.6f} and best detection accuracy {accuracy:.6f} of the same {n} images "
            f"contradict: AUROC must lie between {low:.6f} and {high:.6f}"
        )
    if fpr95 is not None and not 1 - accuracy <= (0.05 + fpr95) / 2 + 1 / n:
        raise GradbenchError(
            f"best detection accuracy {accuracy:.6f} and FPR95 {fpr95:.6f} of the same {n} images "
            f"contradict: the detection error must be at most {(0.05 + fpr95) / 2:.6f}"
        )


def accuracy_from_auroc(auroc: float) -> float:
    """Return the least best detection accuracy that an AUROC allows: 1 - sqrt((1 - AUROC) / 2)."""
    return max(0.5, 1 - np.sqrt((1 - auroc) / 2))


def fpr95_from_auroc(auroc: float) -> float:
    """Return the largest FPR95, of either side, that an AUROC allows: 20 (1 - AUROC).

    The error at recall r, F(r), does not fall with r, and its mean over r is 1 - AUROC.
    """
    return min(1.0, 20 * (1 - auroc))


def aupr_from_auroc(auroc: float, share: float) -> float:
    """Return a lower bound of the average precision that an AUROC allows.

    At recall r the error is at most (1 - AUROC) / (1 - r); precision follows from it.

    Args:
        auroc: P(abnormal score > normal score), ties counted as lost.
        share: of the positive class among all images.
    """
    recall = (np.arange(100_000) + 0.5) / 100_000
    error = np.minimum(1, (1 - auroc) / (1 - recall))
    return float(np.mean(share * recall / (share * recall + (1 - share) * error)))
