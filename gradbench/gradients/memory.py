"""Chunks of images, halved when the device's memory does not suffice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod, sqrt
from typing import TypeVar

import torch
from torch import Tensor

from gradbench.errors import GradbenchError

Result = TypeVar("Result")


def default_chunk(shape: Sequence[int], device: torch.device) -> int:
    """Return the images per pass: 64 of 32x32 pixels on a CPU, 512 elsewhere, fewer when larger.

    Networks for large images reduce them early, hence the square root of the number of pixels. On
    a CPU fewer images starve the threads (CIFAR ResNet-18, 64 images, two threads: chunks of 32
    take 1.02 to 1.12 of the time of one chunk; on one thread of 32 the same, of 8 1.15).
    """
    pixels = prod(shape[-2:]) if len(shape) > 2 else 1
    images = (64 if device.type == "cpu" else 512) * sqrt(32 * 32 / max(pixels, 1))
    return max(1, min(1024, int(images)))


def in_chunks(
    work: Callable[[Tensor], Result], images: Tensor, chunk: int
) -> tuple[list[Result], int]:
    """Work on chunks of images in order; one that does not fit is halved, and so are later ones.

    Returns the results, and how often a chunk was halved; one image that does not fit is an error.
    """
    results, begin, halvings = [], 0, 0
    while begin < len(images):
        piece = images[begin : begin + chunk]
        try:
            results.append(work(piece))
        except RuntimeError as fault:
            if not out_of_memory(fault):
                raise
            if len(piece) == 1:
                raise GradbenchError(
                    f"one image of shape {tuple(piece.shape[1:])} does not fit in the memory of "
                    f"{piece.device if piece.device.type != 'cpu' else 'the device'}: choose a "
                    "smaller network or image, or another device"
                ) from fault
        else:
            begin += len(piece)
            continue
        # Outside the handler, where the traceback no longer holds what the pass had built.
        chunk = len(piece) // 2
        halvings += 1
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # blocks of the former size would be of no use
    return results, halvings


def out_of_memory(fault: BaseException) -> bool:
    """Whether a fault says that memory did not suffice, on any device."""
    # The allocator of a CPU and some kernels raise a plain RuntimeError: only its text tells.
    messages = ("can't allocate memory", "out of memory", "ALLOC_FAILED")
    return isinstance(fault, torch.OutOfMemoryError) or (
        isinstance(fault, RuntimeError) and any(m in str(fault) for m in messages)
    )
