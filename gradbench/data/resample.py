"""The one place where images take the in-distribution shape, and the control of doing so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from gradbench.config import ProcessingStep
from gradbench.data.files import FileImages
from gradbench.data.imageset import ImageSet, LazyImages, join_notes, shards
from gradbench.data.picture import (
    Resampling,
    central_box,
    compress_jpeg,
    fit_picture,
    resample,
    to_picture,
)
from gradbench.errors import GradbenchError
from gradbench.support.progress import Progress
from gradbench.support.typed import check_type

CHANNELS = {1: "grey", 3: "RGB"}


def resize_to(
    images: ImageSet,
    shape: Sequence[int],
    filter: str = "bilinear",
    antialias: bool = True,
    mode: str = "resize",
) -> ImageSet:
    """Return uint8 images in a shape (C, H, W), with a note that says how they were resampled.

    Image files are read anew from the originals, so that nothing is resampled twice. Images of
    the wanted shape come back as they are. An official set becomes `regenerated` when its pixels
    are computed anew; repeating a grey channel computes nothing. For `filter`, `antialias` and
    `mode` see `Resampling`.
    """
    shape, resampling = tuple(int(n) for n in shape), Resampling(filter, antialias, mode)
    pixels = images.images
    files = isinstance(pixels, FileImages)
    if images.shape == shape and (not files or pixels.has_shape(shape)):
        return images
    if pixels.dtype != np.uint8:
        raise GradbenchError(
            f"{images.name}/{images.split}: images of shape {list(images.shape)} are not on the "
            f"1/255 grid and cannot be brought to {list(shape)}"
        )
    native, size = f"{images.shape[2]}x{images.shape[1]}", f"{shape[2]}x{shape[1]}"
    if files:
        resized, native = pixels.resized(shape, resampling), pixels.native
    elif isinstance(pixels, LazyImages):
        resized = LazyImages(
            lambda rows: resize_pixels(pixels[rows], shape, resampling), (len(images), *shape)
        )
    else:
        resized = resize_pixels(pixels, shape, resampling)
    notes, computed = [images.note], native != size
    if native != size:
        ends = [[int(side) for side in end.split("x")] for end in native.split(" to ")]
        same = len(ends) == 1 and ends[0][0] * shape[1] == ends[0][1] * shape[2]
        others = "proportions not kept" if mode == "resize" else "centre crop"
        notes.append(f"{native} -> {size} {resampling}{'' if same else f', {others}'}")
    if images.shape[0] != shape[0]:
        notes.append(f"{CHANNELS[images.shape[0]]} -> {CHANNELS[shape[0]]}")
        computed |= shape[0] == 1
    status = "regenerated" if computed and images.status == "official" else images.status
    return replace(images, images=resized, status=status, note=join_notes(*notes))


def resize_pixels(
    pixels: np.ndarray, shape: tuple[int, int, int], resampling: Resampling
) -> np.ndarray:
    """Return (N, c, h, w) uint8 as (N, C, H, W) uint8, image by image."""
    resized = np.empty((len(pixels), *shape), np.uint8)
    for row, image in enumerate(pixels):
        resized[row] = fit_picture(to_picture(image), shape, resampling)
    return resized


def round_trip(
    images: ImageSet,
    native: Sequence[int],
    processing: Sequence[Mapping[str, Any]] | None = None,
    filter: str = "bilinear",
    antialias: bool = True,
    mode: str = "resize",
    workers: int = 2,
) -> ImageSet | None:
    """Put clean images through the resampling and JPEG that another set went through.

    A detector that tells the result from the clean images has found the processing, not the
    content. The steps of `processing` run in order, each with `shape` (H, W) and `filter` to be
    resampled to (bilinear unless said), or `jpeg` (a quality), or both. Then the images take the
    other set's native shape (C, H, W), and are resized back as its `resize_to` did. They keep
    sources, groups and labels, and have the status `generated`; None where the other set went
    through nothing.
    """
    steps = [dict(step) for step in processing or ()]
    check_type(steps, list[ProcessingStep], "dataset.processing")
    native, resampling = tuple(int(n) for n in native), Resampling(filter, antialias, mode)
    if mode != "resize":
        box = central_box(native[:0:-1], images.shape[:0:-1], resampling.part)
        left, top, right, bottom = box
        native = (native[0], bottom - top, right - left)
    # what changes a picture, by its name in the note; sizes are (width, height)
    chain, size = [], images.shape[:0:-1]
    for step in [*steps, {"shape": native[1:]}]:
        target = tuple(int(n) for n in step["shape"][::-1]) if step.get("shape") else size
        if target != size:
            how, size = Resampling(step.get("filter", "bilinear")), target
            name = f"{size[0]}x{size[1]} {how}"
            chain.append((name, partial(resample, size=size, resampling=how)))
        if (quality := step.get("jpeg")) is not None:
            chain.append((f"JPEG {quality}", partial(compress_jpeg, quality=quality)))
    if not chain and native == images.shape:
        return None
    processed = np.empty((len(images), *images.shape), np.uint8)

    def process(row: int, pixels: np.ndarray) -> None:
        picture = to_picture(pixels).convert("L" if native[0] == 1 else "RGB")
        for _, change in chain:
            picture = change(picture)
        processed[row] = fit_picture(picture, images.shape, resampling)

    with (
        Progress(f"round trip of {images.name}", len(images)) as progress,
        ThreadPoolExecutor(max(workers, 1)) as pool,
    ):
        for rows in shards(len(images)):
            block = images.images[rows]
            list(pool.map(process, range(rows.start, rows.stop), block))
            progress.advance(len(block))
    parts = [name for name, _ in chain]
    if size != images.shape[:0:-1]:
        parts.append(f"{images.shape[2]}x{images.shape[1]} {resampling}")
    if native[0] != images.shape[0]:
        parts.append(f"as {CHANNELS[native[0]]}")
    note = join_notes(images.note, f"round trip: {', '.join(parts)}")
    return replace(images, images=processed, status="generated", note=note)
