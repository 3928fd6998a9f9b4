"""What images went through before they were handed over: resampling and JPEG, as far as known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradbench.data.files import FileImages

LARGEST = 256
"""Pixels of the longer side at which JPEG is imitated; finer traces do not outlive a reduction."""


def as_steps(processing: Any) -> list[dict] | None:
    """Return a configured chain as a list of steps, None where nothing is known.

    >>> as_steps({"jpeg": 75})
    [{'jpeg': 75}]
    """
    if processing is None:
        return None
    found = [processing] if isinstance(processing, Mapping) else processing
    return [dict(step) for step in found] or None


def of_files(images: FileImages, quality: int) -> list[dict] | None:
    """Return the chain of image files, which are read straight from the originals.

    It takes clean images to the files' usual size and, where most files are JPEG, through JPEG
    there; the reading itself resamples from that size.

    Args:
        images: the files.
        quality: JPEG quality, which is assumed.
    """
    height, width = images.usual
    step: dict[str, Any] = {}
    if images.jpeg or (height, width) != images.shape[2:]:
        scale = min(LARGEST / max(height, width), 1) if images.sizes is not None else 1
        step["shape"] = [max(round(height * scale), 1), max(round(width * scale), 1)]
    if images.jpeg:
        step["jpeg"] = quality
    return [step] if step else None
