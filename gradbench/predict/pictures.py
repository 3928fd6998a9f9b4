"""New images on their way to f: files found and decoded batch by batch, arrays checked."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from gradbench.data.files import SUFFIXES, decode_error, list_entries
from gradbench.data.imageset import shards
from gradbench.data.picture import Resampling, fit_picture
from gradbench.data.resample import resize_pixels
from gradbench.errors import GradbenchError, printable
from gradbench.outputs.read import BATCH
from gradbench.predict.saved_network import describe_type
from gradbench.support.text import expand_home

WORKERS = min(os.cpu_count() or 1, 8)
"""Threads that decode files."""


@dataclass(frozen=True)
class PictureBatch:
    """Some images.

    Attributes:
        pixels: (n, C, H, W) of those that could be read.
        faults: of every image, why it could not be read; empty if it could.
    """

    pixels: np.ndarray
    faults: Sequence[str]


def find_pictures(
    places: str | Path | Iterable[str | Path], left: Counter[str] | None = None
) -> list[Path]:
    """Return the files that are named, and the pictures under the folders, each once.

    A file that is named is taken whatever its name, of folders what has a picture's suffix; `left`
    takes the number of other files there, by suffix.

    Raises:
        GradbenchError: for a place that there is not, or if there is no picture at all.
    """
    found: dict[Path, None] = {}
    places = _listed(places)
    for place in places:
        if os.path.isdir(place):
            found.update(dict.fromkeys(list_entries(place, left)))
        else:
            _see(place)
            found[place] = None
    if not found:
        named = ", ".join(map(printable, places)) or "nothing named"
        raise GradbenchError(f"no pictures found ({named}): folders hold {', '.join(SUFFIXES)}")
    return list(found)


def _listed(places: str | Path | Iterable[str | Path]) -> list[Path]:
    several = isinstance(places, Iterable) and not isinstance(places, str | Path)
    among = "a list with " if several else ""
    places = list(places) if several else [places]
    for place in places:
        if not isinstance(place, str | Path):
            raise GradbenchError(
                f"images are {among}{describe_type(place)}: give an array or tensor (N, C, H, W), "
                "or files and folders"
            )
    return [expand_home(place) for place in places]


def _see(place: Path) -> None:
    try:
        os.lstat(place)
    except (OSError, ValueError) as fault:
        known = isinstance(fault, FileNotFoundError | NotADirectoryError)
        why = "" if known else f" that can be looked at ({decode_error(fault)})"
        raise GradbenchError(
            f"there is no file or folder {printable(place)}{why}: name pictures, or folders"
        ) from fault


def batches(count: int) -> Iterator[list[slice]]:
    """Yield the batches of each shard of images: those in which a run reads a set of this size.

    The last bits of outputs may depend on the batch, so that scores are then those of the run.
    """
    for rows in shards(count):
        starts = range(rows.start, rows.stop, BATCH)
        yield [slice(start, min(start + BATCH, rows.stop)) for start in starts]


def decode_files(
    paths: Sequence[Path],
    wanted: Sequence[slice],
    shape: tuple[int, int, int],
    fit: Resampling,
    bits: int | None = None,
) -> Iterator[PictureBatch]:
    """Decode files batch by batch, the next batch while the last one is worked on.

    They take the way of a data set's files: upright, 8 bits, resampled once.

    Args:
        paths: files.
        wanted: rows of each batch.
        shape: (C, H, W) that they are brought to.
        fit: how.
        bits: of grey files with more than 8, see `picture.eight_bits`.
    """

    def one(path: Path) -> np.ndarray | str:
        try:
            if missing := _no_file(path):
                return missing
            with Image.open(path) as picture:
                return fit_picture(picture, shape, fit, bits)
        except Exception as fault:  # Pillow meets damaged files with more than it says
            return decode_error(fault)

    with ThreadPoolExecutor(WORKERS) as pool:

        def begin(rows: slice):
            return [pool.submit(one, path) for path in paths[rows]]

        ahead = begin(wanted[0]) if wanted else []
        for following in [*wanted[1:], None]:
            now, ahead = ahead, [] if following is None else begin(following)
            found = [future.result() for future in now]
            whole = [pixels for pixels in found if not isinstance(pixels, str)]
            pixels = np.stack(whole) if whole else np.empty((0, *shape), np.uint8)
            yield PictureBatch(pixels, [one if isinstance(one, str) else "" for one in found])


def take_images(
    pixels: np.ndarray, wanted: Sequence[slice], shape: tuple[int, int, int], fit: Resampling
) -> Iterator[PictureBatch]:
    """Take images from an array batch by batch; uint8 of another shape is brought to `shape`."""
    for rows in wanted:
        some = pixels[rows]
        if some.dtype == np.uint8 and some.shape[1:] != tuple(shape):
            some = resize_pixels(some, shape, fit)
        yield PictureBatch(some, [""] * len(some))


def as_array(images: np.ndarray | torch.Tensor, shape: tuple[int, int, int]) -> np.ndarray:
    """Return images as an array (N, C, H, W): uint8, or float32 in [0, 1] of the given shape.

    Raises:
        GradbenchError: for another shape, type or range.
    """
    if torch.is_tensor(images):
        try:
            images = images.detach().cpu()
            images = (images.float() if images.is_floating_point() else images).numpy()
        except (TypeError, RuntimeError, NotImplementedError) as fault:
            raise GradbenchError(
                f"images are a tensor that holds no plain numbers ({images.layout}, "
                f"{images.dtype}, {images.device}): give a dense one"
            ) from fault
    images = np.asarray(images)
    form = "(N, C, H, W)"
    if images.ndim != 4:
        hint = ", a single image as images[None]" if images.ndim == 3 else ""
        raise GradbenchError(f"images of shape {images.shape}: give {form}{hint}")
    if images.shape[1] not in (1, 3):
        hint = ": transpose(0, 3, 1, 2)" if images.shape[3] in (1, 3) else ""
        raise GradbenchError(
            f"images of shape {images.shape}: give {form} with 1 or 3 channels{hint}"
        )
    if not images.size:
        raise GradbenchError(f"images of shape {images.shape}: there is nothing to score")
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind != "f":
        raise GradbenchError(f"images of type {images.dtype}: give uint8, or floats in [0, 1]")
    if images.shape[1:] != tuple(shape):
        raise GradbenchError(
            f"float images of shape {images.shape[1:]}: the network takes {tuple(shape)}; only "
            "uint8 images and files are resampled"
        )
    least, most = float(images.min()), float(images.max())
    if not 0 <= least <= most <= 1:  # false for NaN
        raise GradbenchError(
            f"float images from {least:g} to {most:g}: give them in [0, 1], not normalised (the "
            "network does that), or as uint8"
        )
    return images.astype(np.float32, copy=False)


def _no_file(path: Path) -> str:
    """Return why there is nothing to open, empty where there is a file; a pipe would block."""
    if os.path.islink(path) and not os.path.exists(path):
        return "a link that leads nowhere"
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        return "a folder that cannot be looked through"
    return "" if stat.S_ISREG(mode) else "no regular file"
