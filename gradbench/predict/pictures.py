"""New images on their way to f: files found and decoded, arrays checked."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from gradbench.data.files import SUFFIXES, decode_error, list_entries
from gradbench.data.picture import Resampling, fit_picture
from gradbench.errors import GradbenchError, printable
from gradbench.support.text import expand_home

WORKERS = min(os.cpu_count() or 1, 8)
"""Threads that decode files."""


def find_pictures(
    places: str | Path | Iterable[str | Path], ignored: Counter[str] | None = None
) -> list[Path]:
    """Return the files that are named, and the pictures under the folders, each once.

    A file that is named is taken whatever its name, of folders what has a picture's suffix;
    `ignored` takes the number of other files there, by suffix.

    Raises:
        GradbenchError: for a place that there is not, or if there is no picture at all.
    """
    several = isinstance(places, Iterable) and not isinstance(places, str | Path)
    paths: dict[Path, None] = {}
    places = list(places) if several else [places]
    for place in places:
        if not isinstance(place, str | Path):
            raise GradbenchError(
                f"images are of type {type(place).__name__}: give an array or tensor (N, C, H, W), "
                "or files and folders"
            )
        path = expand_home(place)
        if os.path.isdir(path):
            paths.update(dict.fromkeys(list_entries(path, ignored)))
            continue
        try:
            os.lstat(path)
        except (OSError, ValueError) as fault:
            absent = isinstance(fault, FileNotFoundError | NotADirectoryError)
            why = "" if absent else f" that can be looked at ({decode_error(fault)})"
            raise GradbenchError(
                f"there is no file or folder {printable(path)}{why}: name pictures, or folders"
            ) from fault
        paths[path] = None
    if not paths:
        named = ", ".join(map(printable, places)) or "nothing named"
        raise GradbenchError(f"no pictures found ({named}): folders hold {', '.join(SUFFIXES)}")
    return list(paths)


def decode_files(
    paths: Sequence[Path], shape: tuple[int, int, int], fit: Resampling, bits: int | None = None
) -> tuple[np.ndarray, list[str]]:
    """Decode files on the way of a data set's: upright, 8 bits, resampled once to (C, H, W).

    `bits` are those of grey files with more than 8, see `picture.eight_bits`.

    Returns:
        ((n, C, H, W) uint8 of those that could be read; of every file why it could not be read,
        empty if it could)
    """

    def decode(path: Path) -> np.ndarray | str:
        try:
            if os.path.islink(path) and not os.path.exists(path):
                return "a link that leads nowhere"
            mode = os.stat(path).st_mode
            if stat.S_ISDIR(mode):
                return "a folder that cannot be looked through"
            if not stat.S_ISREG(mode):  # a pipe would block
                return "no regular file"
            with Image.open(path) as picture:
                return fit_picture(picture, shape, fit, bits)
        except Exception as fault:  # Pillow meets damaged files with more than it says
            return decode_error(fault)

    with ThreadPoolExecutor(WORKERS) as pool:
        decoded = list(pool.map(decode, paths))
    pixels = [one for one in decoded if not isinstance(one, str)]
    faults = [one if isinstance(one, str) else "" for one in decoded]
    return np.stack(pixels) if pixels else np.empty((0, *shape), np.uint8), faults


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
    if images.ndim != 4 or images.shape[1] not in (1, 3) or not images.size:
        hint = ", a single image as images[None]" if images.ndim == 3 else ""
        if images.ndim == 4 and images.shape[3] in (1, 3):
            hint = ": transpose(0, 3, 1, 2)"
        if not images.size:
            hint = ", at least one image"
        raise GradbenchError(
            f"images of shape {images.shape}: give (N, C, H, W) with 1 or 3 channels{hint}"
        )
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
