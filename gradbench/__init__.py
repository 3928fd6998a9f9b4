"""Benchmarks of gradient-based uncertainty for image classifiers."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from gradbench.api import evaluate, load_results
    from gradbench.predict.image_detector import ImageDetector as detector
    from gradbench.predict.run_scorer import load

__version__ = "0.1.0"
__all__ = ["detector", "evaluate", "load", "load_results"]
_PLACES = {
    "detector": ("gradbench.predict.image_detector", "ImageDetector"),
    "evaluate": ("gradbench.api", "evaluate"),
    "load": ("gradbench.predict.run_scorer", "load"),
    "load_results": ("gradbench.api", "load_results"),
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is used first: torch comes with it."""
    if name not in _PLACES:
        raise AttributeError(f"module 'gradbench' has no attribute {name!r}")
    module, attribute = _PLACES[name]
    return getattr(import_module(module), attribute)
