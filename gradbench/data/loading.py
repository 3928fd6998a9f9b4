"""A split as a source holds it, and the arrays on disk: `<root>/<name>/<split>.npz`."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from gradbench.data.imageset import LazyImages, shards
from gradbench.errors import GradbenchError

WHOLE = "all"  # split of images that are not divided into training and test
UNLABELLED = -1
"""Label of an image whose class is not known, as in ODIN's archives; only a challenge has them."""


@dataclass
class LoadedSplit:
    """Images of one split as a source holds them."""

    images: np.ndarray | LazyImages  # (N, C, H, W) uint8
    labels: np.ndarray  # (N,) int64 from 0; `UNLABELLED` where the source has none
    names: np.ndarray | None = None  # (N,) in the source, of GTSRB `class/track_frame`
    classes: tuple[str, ...] = ()  # names of the labels, where the source has them
    groups: np.ndarray | None = None  # (N,) of each image, where the source itself knows it
    copied: bool = False  # as arrays by someone else, who may not say what was done to the images
    restored: bool = False  # pixels are known only up to an error
    origin: str = ""  # digest of the content, where the set's name does not tell it from others
    rows: np.ndarray | None = None  # (N,) of the undivided set that these were taken from
    note: str = ""


@contextmanager
def refuse_damage(sentence: str) -> Iterator[None]:
    """Turn whatever readers of damaged files raise into one sentence with the reason at its end."""
    try:
        yield
    except GradbenchError:
        raise
    except Exception as fault:  # zip, pickle, tokenizer and NumPy have each errors of their own
        raise GradbenchError(f"{sentence}: {' '.join(str(fault).split())}") from fault


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
    with refuse_damage(f"{path} is not a whole .npz file"):
        with zipfile.ZipFile(path) as archive:
            held = {name.removesuffix(".npy") for name in archive.namelist()}
            if "images" not in held:
                raise GradbenchError(
                    f"{path} has no array 'images': it needs images, and labels unless it is a "
                    f"challenge, and holds {', '.join(sorted(held)) or 'nothing'}"
                )
            images = _read_images(archive, path)
        with np.load(path, allow_pickle=False) as arrays:
            others = {key: _decoded(arrays[key]) for key in held - {"images"}}
    labels, table = others.get("labels", np.full(len(images), UNLABELLED)), others.get("requantise")
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise GradbenchError(f"{path}: labels must be (N,) of integers, not {_form(labels)}")
    for key in {"labels", "names"} & others.keys():
        if len(others[key]) != len(images):
            raise GradbenchError(f"{path} has {len(others[key])} {key} for {len(images)} images")
    classes = others.get("classes", ())
    if "wnids" in others:
        words = others.get("class_names", np.full(len(others["wnids"]), "")).astype(str)
        classes = map(class_name, others["wnids"].astype(str), words)
    loaded = LoadedSplit(
        images, labels.astype(np.int64), copied=True, classes=tuple(map(str, classes))
    )
    if "names" in others:
        loaded.names = others["names"].astype(str)
    if table is not None:
        if table.shape != (256,) or table.dtype != np.uint8:
            raise GradbenchError(f"{path}: requantise must be 256 uint8, not {_form(table)}")
        for rows in shards(len(images)):
            images[rows] = table[images[rows]]
        loaded.restored = True
        loaded.note = f"restored copy, all images at the same {len(np.unique(table))} grey levels"
    return loaded


def read_npz_header(path: Path) -> tuple[int, bool]:
    """Return the number of images in a `.npz` file and whether they are restored.

    Reads the header of one array, so that a list of all sets takes no time.
    """
    with (
        refuse_damage(f"{path} is not a whole .npz file"),
        zipfile.ZipFile(path) as archive,
        archive.open("images.npy") as stream,
    ):
        return int(_read_header(stream)[0][0]), "requantise.npy" in archive.namelist()


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Read shape, order (True for Fortran's) and type of an array."""
    if np.lib.format.read_magic(stream) == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    return np.lib.format.read_array_header_2_0(stream)


def _read_images(archive: zipfile.ZipFile, path: Path) -> np.ndarray:
    """Read `images` shard by shard into (N, C, H, W), so that no second copy is held."""
    with archive.open("images.npy") as stream:
        shape, fortran, dtype = _read_header(stream)
        if dtype != np.uint8 or len(shape) != 4 or shape[3] not in (1, 3) or not all(shape):
            raise GradbenchError(
                f"{path}: images must be N×H×W×C uint8 with C 1 or 3, not {shape} {dtype}"
            )
        if fortran:
            with np.load(path, allow_pickle=False) as arrays:
                return np.ascontiguousarray(arrays["images"].transpose(0, 3, 1, 2))
        count, height, width, channels = shape
        images = np.empty((count, channels, height, width), np.uint8)
        for rows in shards(count):
            block = np.frombuffer(stream.read(images[rows].size), np.uint8)
            # a block that ends early cannot be given this shape
            block = block.reshape(len(images[rows]), height, width, channels)
            images[rows] = block.transpose(0, 3, 1, 2)
        stream.read(1)  # at its end the archive compares the checksum
    return images


def class_name(wnid: str, words: str) -> str:
    """Return a WordNet id with the first of its words.

    >>> class_name("n01443537", "goldfish, Carassius auratus")
    'n01443537 goldfish'
    """
    return f"{wnid} {words.split(',')[0].strip()}".strip()


def _decoded(array: np.ndarray) -> np.ndarray:
    """Return an array of at least one dimension, with bytes as text."""
    array = np.atleast_1d(array)
    return np.char.decode(array, "utf-8") if array.dtype.kind == "S" else array


def _form(array: np.ndarray) -> str:
    return f"{array.shape} {array.dtype}"
