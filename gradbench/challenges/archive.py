"""The published archive of CIFAR-10-C: `CIFAR-10-C/<family>.npy` and `labels.npy`.

A family's array holds 50,000 images, N x H x W x C, uint8: the 10,000 test images at level 1, then
at level 2, and so on, and so does `labels.npy`. It is memory-mapped, and verified before use.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from gradbench.challenges.base import Challenge
from gradbench.challenges.corruptions.base import CommonCorruption
from gradbench.challenges.corruptions.digital import Brightness
from gradbench.challenges.corruptions.tables import CIFAR
from gradbench.challenges.produce import ChallengeSetup
from gradbench.data.imageset import ImageSet, LazyImages, digest_pixels
from gradbench.data.in_distribution import InDistribution
from gradbench.data.roles import stratified_subset
from gradbench.errors import GradbenchError, MissingData
from gradbench.store import Key, Store
from gradbench.support.progress import step

FOLDER, LABELS, DATASET = "CIFAR-10-C", "labels.npy", "cifar10"
EACH, LEVELS = 10_000, 5
"""Images a level, levels."""
SHAPE = (32, 32, 3)
VERSION = 1
"""Of the product that holds the order."""
FARTHEST = 4.0
"""Root mean square difference in grey levels above which a row is not that of an image."""
GENERATE = "or choose challenge.source=generated"


class UnmatchedImages(GradbenchError):
    """Images of the archive that cannot be matched one to one with the test images; says why."""


@dataclass(frozen=True)
class Archive:
    """The archive in a folder; a file that is not what was published is a GradbenchError."""

    folder: Path

    def has(self, family: str) -> bool:
        """Return True if the files of a family are there."""
        return (self.folder / f"{family}.npy").is_file() and (self.folder / LABELS).is_file()

    def level(self, family: str, level: int) -> np.ndarray:
        """Return the (10000, 32, 32, 3) images of a family at a level, memory-mapped."""
        array = self._open(f"{family}.npy", (EACH * LEVELS, *SHAPE), np.uint8)
        return array[EACH * (level - 1) : EACH * level]

    def labels(self) -> np.ndarray:
        """Return the (10000,) int64 labels, which are the same at every level."""
        array = self._open(LABELS, (EACH * LEVELS,), np.integer)
        levels = array.astype(np.int64).reshape(LEVELS, EACH)
        if not (levels == levels[0]).all() or levels.min() < 0 or levels.max() > 9:
            raise self._fault(LABELS, "does not hold the same labels from 0 to 9 at every level")
        return levels[0]

    def order(self, test: ImageSet, store: Store) -> np.ndarray:
        """Return for each of all clean test images the row of the archive that was made from it.

        The rows themselves where all labels agree in order, else the nearest row at level 1 of
        `brightness`, which is not random: the image is brightened first. The store keeps the order.
        Raises UnmatchedImages if the images cannot be matched one to one.
        """
        labels = self.labels()
        if np.array_equal(labels, test.labels):
            return np.arange(EACH)
        if not self.has("brightness"):
            raise UnmatchedImages(
                f"their order is that of other labels than the test set's, and {self.folder} has "
                "no brightness.npy to match images by"
            )
        rows = np.ascontiguousarray(self.level("brightness", 1))
        inputs = {
            "test": test.fingerprint,
            "rows": digest_pixels(rows),
            "labels": hashlib.sha256(labels.tobytes()).hexdigest(),
        }

        def build(folder: Path, _: Path) -> dict:
            setup = ChallengeSetup(Brightness(), "brightness", CIFAR["brightness"][0])
            bright = setup.make(test, np.arange(len(test))).transpose(0, 2, 3, 1)
            bright, published = bright.reshape(len(bright), -1), rows.reshape(len(rows), -1)
            order = match_images(bright, test.labels, published, labels)
            save_file({"rows": order}, str(folder / "order.safetensors"))
            return {"images": len(order)}

        with step(f"matching the images of {FOLDER} with the test images"):
            product = store.make(Key("archive_order", VERSION, {}, inputs), build)
        return load_file(str(product.path("order.safetensors")))["rows"]

    def _open(self, name: str, shape: tuple[int, ...], kind: type) -> np.ndarray:
        try:
            array = np.load(self.folder / name, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as fault:
            raise self._fault(name, f"cannot be read ({fault})") from fault
        if array.shape != shape or not np.issubdtype(array.dtype, kind):
            wanted = "whole numbers" if kind is np.integer else "uint8"
            raise self._fault(
                name, f"is {array.shape} {array.dtype} where {shape} {wanted} was published"
            )
        return array

    def _fault(self, name: str, fault: str) -> GradbenchError:
        return GradbenchError(
            f"{self.folder / name} {fault}: put the published file there, {GENERATE}"
        )


def match_images(
    images: np.ndarray, labels: np.ndarray, rows: np.ndarray, row_labels: np.ndarray
) -> np.ndarray:
    """Return for each image (N, P) uint8 the place, int64, of the nearest row with its label.

    Distances are exact: sums of squares of whole numbers in float64. Raises UnmatchedImages if two
    images have the same nearest row, or a nearest row is too far.
    """
    places = np.full(len(images), -1, np.int64)
    for label in np.unique(labels):
        alike, candidates = np.flatnonzero(labels == label), np.flatnonzero(row_labels == label)
        if not len(candidates):
            raise UnmatchedImages(f"no row has the label {label} of image {alike[0]}")
        left, right = images[alike].astype(np.float64), rows[candidates].astype(np.float64)
        squares = (left**2).sum(1)[:, None] + (right**2).sum(1) - 2 * left @ right.T
        nearest = squares.argmin(1)
        apart = np.sqrt(squares[np.arange(len(alike)), nearest] / left.shape[1])
        worst = int(apart.argmax())
        if apart[worst] > FARTHEST:
            raise UnmatchedImages(
                f"the nearest row with the label of image {alike[worst]} differs from it by "
                f"{apart[worst]:.1f} grey levels"
            )
        row, count = np.unique(nearest, return_counts=True)
        if count.max() > 1:
            one, other = alike[np.flatnonzero(nearest == row[count.argmax()])[:2]]
            raise UnmatchedImages(f"images {one} and {other} have the same nearest row")
        places[alike] = candidates[nearest]
    return places


def check_source(config: Mapping[str, Any], dataset: str, challenges: Iterable[Challenge]) -> None:
    """Refuse `challenge.source` where it asks for images that were never published."""
    if config["challenge"]["source"] != "archive":
        return
    for challenge in challenges:
        if isinstance(challenge, CommonCorruption) and not _is_published(challenge, dataset):
            raise GradbenchError(
                f"challenge.source=archive: {FOLDER} has {challenge.family} of {DATASET} with "
                "table=cifar alone; choose auto or generated"
            )


def archive_of(
    challenge: Challenge, config: Mapping[str, Any], dataset: str, root: Path
) -> Archive | None:
    """Return the archive that a challenge's images are taken from, None where they are made.

    Raises MissingData if the settings ask for an archive that is not there.
    """
    source = config["challenge"]["source"]
    if source == "generated" or not isinstance(challenge, CommonCorruption):
        return None
    archive = Archive(root / FOLDER)
    if _is_published(challenge, dataset) and archive.has(challenge.family):
        return archive
    if source == "archive":
        raise MissingData(
            f"{archive.folder} does not hold {challenge.family}.npy and {LABELS}: put the "
            f"published files there, {GENERATE}"
        )
    return None


def _is_published(challenge: CommonCorruption, dataset: str) -> bool:
    return dataset == DATASET and challenge.table == "cifar" and not challenge.own_strengths


def published_images(
    archive: Archive,
    challenge: CommonCorruption,
    level: int,
    name: str,
    images: InDistribution,
    grouped: bool,
    store: Store,
) -> ImageSet:
    """Return the published images of a family at a level, in the order of the clean ones.

    They have the sources of the clean ones. Where they cannot be matched, a `grouped` split, which
    keeps images of one source together, is refused; others get images with sources of their own.
    """
    rows = archive.level(challenge.family, level)
    notes = [f"archive {FOLDER}", challenge.note]
    clean = images.normal
    try:
        order = archive.order(images.test, store)
    except UnmatchedImages as reason:
        if grouped:
            raise GradbenchError(
                f"a grouped split needs the clean image of every image of {FOLDER}, and they "
                f"cannot be told: {reason}; choose protocol.split=random {GENERATE}"
            ) from reason
        sources = np.array([f"{FOLDER}/{challenge.family}/{i}" for i in range(EACH)])
        lazy = _lazy(rows, np.arange(EACH))
        whole = ImageSet(name, clean.split, lazy, archive.labels(), sources)
        some = stratified_subset(whole, len(clean))
        note = "; ".join([*notes, "not matched to the test images"])
        return replace(some, classes=clean.classes, note=note)
    place = {source: i for i, source in enumerate(images.test.sources.tolist())}
    places = order[[place[source] for source in clean.sources.tolist()]]
    if not np.array_equal(order, np.arange(len(order))):
        notes.append("matched to the test images, which are in another order")
    lazy = _lazy(rows, places)
    return replace(clean, name=name, images=lazy, status="official", note="; ".join(notes))


def _lazy(rows: np.ndarray, places: np.ndarray) -> LazyImages:
    """Return the images (N, C, H, W) in the given places of rows (M, H, W, C)."""

    def read(wanted: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(rows[places[wanted]].transpose(0, 3, 1, 2))

    height, width, channels = SHAPE
    return LazyImages(read, (len(places), channels, height, width))
