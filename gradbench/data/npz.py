"""Arrays on disk: `<root>/<name>/<split>.npz`."""

from __future__ import annotations

import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from gradbench.data.loading import UNLABELLED, LoadedSplit
from gradbench.errors import GradbenchError

BLOCK = 2**24
"""Bytes that are turned from N×H×W×C to N×C×H×W at a time, so that no second copy is held."""
FAULTS = (zipfile.BadZipFile, zlib.error, struct.error, ValueError, SyntaxError, LookupError,
          EOFError, OSError, RuntimeError, MemoryError)  # fmt: skip
"""What damaged files raise; RuntimeError where a byte asks for encryption or an unknown
compression, MemoryError where one makes an array huge."""


def read_npz(path: Path) -> LoadedSplit:
    """Read the images and labels of a `.npz` file.

    Keys: `images` (N, H, W, C) uint8 with C 1 or 3; optional `labels` (N,) of integers, `names`
    (N,), `classes` (K,), `wnids` and `class_names` (K,) as in Tiny ImageNet, whose classes are then
    called `n01443537 goldfish`, and `requantise` (256,) uint8: the table to the grey levels of
    restored images, which is applied to all of them so that exact ones cannot be told.

    Without `labels` every label is `UNLABELLED`; `check_labels` refuses that where they are needed.

    Raises:
        GradbenchError: if the file is not whole or an array is missing or of the wrong form.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            held = {name.removesuffix(".npy") for name in archive.namelist()}
            if "images" not in held:
                raise GradbenchError(
                    f"{path} has no array 'images': it needs images, and labels unless it is a "
                    f"challenge, and holds {', '.join(sorted(held)) or 'nothing'}"
                )
            images = _read_images(archive, path)
        with np.load(path, allow_pickle=False) as arrays:
            others = {key: _decoded(arrays[key]) for key in arrays.files if key != "images"}
    except FAULTS as fault:
        raise GradbenchError(f"{path} is not a whole .npz file: {fault}") from fault
    labels = others.get("labels", np.full(len(images), UNLABELLED))
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise GradbenchError(f"{path}: labels must be (N,) of integers, not {_form(labels)}")
    if len(labels) != len(images):
        raise GradbenchError(f"{path} has {len(labels)} labels for {len(images)} images")
    if labels.dtype == np.uint64 and labels.max() > np.iinfo(np.int64).max:
        raise GradbenchError(f"{path}: labels are numbers of classes, and one is {labels.max()}")
    loaded = LoadedSplit(images, labels.astype(np.int64), copied=True, classes=_classes(others))
    if "names" in others:
        loaded.names = others["names"].astype(str)
        if len(loaded.names) != len(images):
            raise GradbenchError(f"{path} has {len(loaded.names)} names for {len(images)} images")
    if "requantise" in others:
        table = others["requantise"]
        if table.shape != (256,) or table.dtype != np.uint8:
            raise GradbenchError(f"{path}: requantise must be 256 uint8, not {_form(table)}")
        for start in range(0, len(images), 1000):
            images[start : start + 1000] = table[images[start : start + 1000]]
        loaded.restored = True
        loaded.note = f"restored copy, all images at the same {len(np.unique(table))} grey levels"
    return loaded


def read_npz_header(path: Path) -> tuple[int, bool]:
    """Return the number of images in a `.npz` file and whether they are restored.

    Reads the header of one array, so that a list of all sets takes no time.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            with archive.open("images.npy") as stream:
                shape = _read_header(stream)[0]
            return int(shape[0]), "requantise.npy" in archive.namelist()
    except FAULTS as fault:
        raise GradbenchError(f"{path} is not a whole .npz file: {fault}") from fault


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Read shape, order (True for Fortran's) and type of an array."""
    if np.lib.format.read_magic(stream) == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    return np.lib.format.read_array_header_2_0(stream)


def _read_images(archive: zipfile.ZipFile, path: Path) -> np.ndarray:
    """Read `images` block by block into (N, C, H, W)."""
    with archive.open("images.npy") as stream:
        shape, fortran, dtype = _read_header(stream)
        if dtype != np.uint8 or len(shape) != 4 or shape[3] not in (1, 3) or not all(shape):
            raise GradbenchError(
                f"{path}: images must be N×H×W×C uint8 with C 1 or 3, not {shape} {dtype}"
            )
        count, *image = shape
        if fortran:
            with np.load(path, allow_pickle=False) as arrays:
                return np.ascontiguousarray(arrays["images"].transpose(0, 3, 1, 2))
        images = np.empty((count, image[2], *image[:2]), np.uint8)
        size = int(np.prod(image))
        for start in range(0, count, step := max(BLOCK // size, 1)):
            rows = images[start : start + step]
            block = stream.read(len(rows) * size)
            if len(block) < len(rows) * size:
                raise ValueError("its images end early")
            rows[:] = np.frombuffer(block, np.uint8).reshape(-1, *image).transpose(0, 3, 1, 2)
        stream.read(1)  # at its end the archive compares the checksum
    return images


def _classes(arrays: dict[str, np.ndarray]) -> tuple[str, ...]:
    if "wnids" in arrays:
        ids = arrays["wnids"].astype(str)
        words = arrays["class_names"].astype(str) if "class_names" in arrays else [""] * len(ids)
        return tuple(class_name(wnid, word) for wnid, word in zip(ids, words))
    return tuple(str(c) for c in arrays.get("classes", ()))


def class_name(wnid: str, words: str) -> str:
    """Return a WordNet id with the first of its words.

    >>> class_name("n01443537", "goldfish, Carassius auratus")
    'n01443537 goldfish'
    """
    return f"{wnid} {words.split(',')[0].strip()}".strip()


def _decoded(array: np.ndarray) -> np.ndarray:
    """Return bytes as text, other arrays as they are."""
    return np.char.decode(array, "utf-8") if array.dtype.kind == "S" else array


def _form(array: np.ndarray) -> str:
    return f"{array.shape} {array.dtype}"
