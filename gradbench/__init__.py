"""Benchmarks of gradient-based uncertainty for image classifiers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Any

    import torch

    from gradbench.api import evaluate, load_results
    from gradbench.predict.image_detector import ImageDetector
    from gradbench.predict.run_scorer import RunScorer

__version__ = "0.1.0"
__all__ = ["detector", "evaluate", "load", "load_results"]


def __getattr__(name: str) -> Any:
    """Import `evaluate` and `load_results` when they are used first: torch comes with them."""
    if name not in ("evaluate", "load_results"):
        raise AttributeError(f"module 'gradbench' has no attribute {name!r}")
    from gradbench import api

    return getattr(api, name)


def load(
    run: str | Path,
    seed: int | None = None,
    trust: Sequence[str] = (),
    device: str | torch.device = "auto",
) -> RunScorer:
    """Return a scorer of new images with the network and detectors of a finished run.

    `gradbench.load(RUN).score(images)` gives a table; see `RunScorer`.

    Args:
        run: the run's folder, or its name under `outputs/`.
        seed: of several networks the one to take; None for the first.
        trust: modules whose classes may be built beside gradbench's and torchvision's.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.

    Raises:
        GradbenchError: if there is no such run, a file is damaged, or a class is not trusted.
    """
    from gradbench.predict import run_scorer  # torch comes with it

    return run_scorer.load(run, seed, trust, device)


def detector(name: str, dirs: Sequence[str | Path] = (), **settings: Any) -> ImageDetector:
    """Return a detector that reads f by itself, for use without a run.

    `gradbench.detector("knn").fit(model, clean_images).predict(images)` gives a score an image;
    see `ImageDetector`.

    Args:
        name: of the detector, as `gradbench list detectors` gives it.
        dirs: folders of the user's own configuration files.
        settings: in place of those of its file.

    Raises:
        GradbenchError: for an unknown name or setting.
    """
    from gradbench.predict.image_detector import ImageDetector  # torch comes with it

    return ImageDetector(name, dirs, **settings)
