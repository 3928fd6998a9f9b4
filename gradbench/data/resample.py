"""The one place where images are brought to the in-distribution shape, and its control."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np

from gradbench.data.files import FileImages
from gradbench.data.imageset import ImageSet, LazyImages
from gradbench.data.picture import Fit, central, fit_picture, jpeg, resized, to_picture
from gradbench.data.raw import join_notes
from gradbench.errors import GradbenchError
from gradbench.settings import Step
from gradbench.support.described import check
from gradbench.support.progress import Progress

CHANNELS = {1: "grey", 3: "RGB"}


def fit_to(
    images: ImageSet,
    shape: Sequence[int],
    filter: str = "bilinear",
    antialias: bool = True,
    mode: str = "resize",
) -> ImageSet:
    """Bring images to a shape and say so in their note.

    Image files are read anew from the originals, so that nothing is resampled twice. Images of
    the wanted shape come back as they are. An official set becomes `regenerated` when its pixels
    are computed anew; repeating a grey channel computes nothing.

    Args:
        images: uint8 images.
        shape: (C, H, W) with C 1 or 3.
        filter: `nearest`, `box`, `bilinear`, `bicubic` or `lanczos`.
        antialias: widen the filter when an image shrinks.
        mode: `resize` squashes other proportions, `crop` takes the largest central part.
    """
    shape, fit = tuple(int(n) for n in shape), Fit(filter, antialias, mode)
    pixels = images.images
    if len(shape) != 3 or shape[0] not in CHANNELS or min(shape) < 1:
        raise GradbenchError(f"images cannot be brought to shape {list(shape)}: C must be 1 or 3")
    files = isinstance(pixels, FileImages)
    if images.shape == shape and (not files or pixels.fits(shape)):
        return images
    if pixels.dtype != np.uint8:
        raise GradbenchError(
            f"{images.name}/{images.split}: images of shape {list(images.shape)} are not on the "
            f"1/255 grid and cannot be brought to {list(shape)}"
        )
    if files:
        fitted, native = pixels.fitted(shape, fit), pixels.native
    else:
        native = f"{images.shape[2]}x{images.shape[1]}"
        if isinstance(pixels, LazyImages):
            fitted = LazyImages(
                lambda rows: fit_pixels(pixels[rows], shape, fit), (len(images), *shape)
            )
        else:
            fitted = fit_pixels(pixels, shape, fit)
    recolour = images.shape[0] != shape[0]
    size, colour = f"{shape[2]}x{shape[1]}", ""
    if recolour:
        colour = f"{CHANNELS[images.shape[0]]} -> {CHANNELS[shape[0]]}"
    note = ""
    if native != size:
        note = f"{native} -> {size} {fit}{_proportions(native, shape, fit)}"
    computed = native != size or (recolour and shape[0] == 1)
    status = "regenerated" if computed and images.status == "official" else images.status
    return replace(images, images=fitted, status=status, note=join_notes(images.note, note, colour))


def fit_pixels(pixels: np.ndarray, shape: tuple[int, int, int], fit: Fit) -> np.ndarray:
    """Bring (N, c, h, w) uint8 to (N, C, H, W) uint8, image by image."""
    fitted = np.empty((len(pixels), *shape), np.uint8)
    for row, image in enumerate(pixels):
        fitted[row] = fit_picture(to_picture(image), shape, fit)
    return fitted


def round_trip(
    images: ImageSet,
    native: Sequence[int],
    processing: Any = None,
    filter: str = "bilinear",
    antialias: bool = True,
    mode: str = "resize",
    workers: int = 2,
) -> ImageSet | None:
    """Put clean images through the resampling and JPEG that another set went through.

    A detector that tells the result from the clean images has found the processing, not the
    content. The steps of `processing` run in order, then the images take the other set's native
    shape and are brought back by the same `fit_to`.

    Args:
        images: clean in-distribution images, uint8.
        native: (C, H, W) of the other set before `fit_to`.
        processing: of the other set: a step or a list of steps, each with `shape` (H, W) and
            `filter` to be resampled to (bilinear unless said), or `jpeg` (a quality), or both.
        filter: of the `fit_to` that the other set goes through.
        antialias: likewise.
        mode: likewise.
        workers: threads.

    Returns:
        The images with the same sources, groups and labels, status `generated`; None where the
        other set went through nothing.
    """
    native, fit = tuple(int(n) for n in native), Fit(filter, antialias, mode)
    if mode == "crop":
        left, top, right, bottom = central(native[:0:-1], images.shape[:0:-1])
        native = (native[0], bottom - top, right - left)
    steps = [*_steps(processing), (native[:0:-1], Fit(), None)]
    chain, size = [], images.shape[:0:-1]
    for target, how, quality in steps:
        if target is not None and target != size:
            chain.append((target, how, None))
            size = target
        if quality is not None:
            chain.append((None, how, quality))
    if not chain and native == images.shape:
        return None
    fitted = np.empty((len(images), *images.shape), np.uint8)

    def one(row: int, pixels: np.ndarray) -> None:
        picture = to_picture(pixels).convert("L" if native[0] == 1 else "RGB")
        for target, how, quality in chain:
            picture = jpeg(picture, quality) if target is None else resized(picture, target, how)
        fitted[row] = fit_picture(picture, images.shape, fit)

    with (
        Progress(f"round trip of {images.name}", len(images)) as progress,
        ThreadPoolExecutor(max(workers, 1)) as pool,
    ):
        for start in range(0, len(images), 1000):
            block = images.images[start : start + 1000]
            list(pool.map(one, range(start, start + len(block)), block))
            progress.advance(len(block))
    words = [f"JPEG {q}" if t is None else f"{t[0]}x{t[1]} {how}" for t, how, q in chain]
    if size != images.shape[:0:-1]:
        words.append(f"{images.shape[2]}x{images.shape[1]} {fit}")
    if native[0] != images.shape[0]:
        words.append(f"as {CHANNELS[native[0]]}")
    note = f"round trip: {', '.join(words)}"
    return replace(images, images=fitted, status="generated", note=join_notes(images.note, note))


def _proportions(native: str, shape: tuple[int, int, int], fit: Fit) -> str:
    """Say what becomes of other proportions than those of the target."""
    sides = [side.split("x") for side in native.split(" to ")]
    same = all(int(w) * shape[1] == int(h) * shape[2] for w, h in sides)
    if same and len(sides) == 1:
        return ""
    return ", centre crop" if fit.mode == "crop" else ", proportions not kept"


def _steps(processing: Any) -> list[tuple[tuple[int, int] | None, Fit, int | None]]:
    """Return (width, height), filter and JPEG quality of each step."""
    if processing is None:
        return []
    steps = []
    for step in [processing] if isinstance(processing, Mapping) else processing:
        check(dict(step), Step, "dataset.processing")
        quality = step.get("jpeg")
        size = step.get("shape")
        size = None if size is None else (int(size[1]), int(size[0]))
        steps.append((size, Fit(step.get("filter", "bilinear")), quality))
    return steps
