"""Benchmarks of gradient-based uncertainty for image classifiers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch

    from gradbench.predict.scorer import Scorer

__version__ = "0.1.0"


def load(
    run: str | Path,
    seed: int | None = None,
    trust: Sequence[str] = (),
    device: str | torch.device = "auto",
) -> Scorer:
    """Return a scorer of new images with the network and detectors of a finished run.

    `gradbench.load(RUN).score(images)` gives a table; see `scoring.scorer.load` and `Scorer`.

    Args:
        run: the run's folder, or its name under `outputs/`.
        seed: of several networks the one to take; None for the first.
        trust: modules whose classes may be built beside gradbench's and torchvision's.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.

    Raises:
        GradbenchError: if there is no such run, a file is damaged, or a class is not trusted.
    """
    from gradbench.predict import scorer  # torch comes with it

    return scorer.load(run, seed, trust, device)
