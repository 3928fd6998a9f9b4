"""The challenge folders of CURE-TSR."""

from __future__ import annotations

import numpy as np

from gradbench.challenges.base import External, ImageRequest
from gradbench.data.cure_tsr import FOLDERS, FREE, LEVELS, CureTsr, folder_of
from gradbench.data.dataset import Dataset
from gradbench.data.imageset import ImageSet
from gradbench.data.resample import resize_to
from gradbench.errors import GradbenchError, MissingData, unknown


class CureChallenge(External):
    """One challenge type of CURE-TSR at its five levels, read from the published folders.

    Images are resized to the in-distribution shape as the challenge-free ones are. Each keeps the
    source of its challenge-free twin, so that both stand on one side of a split; images without
    one among the measured images are left out.

    `type` is one of the twelve, for example `noise`; `dataset` names the in-distribution set, whose
    folders hold the images.
    """

    kind = "corruption"
    levels = LEVELS

    def __init__(self, type: str, dataset: str = "cure_tsr"):
        if type not in FOLDERS:
            raise unknown("challenge type of CURE-TSR", str(type), FOLDERS)
        self.type, self.dataset = type, dataset

    @property
    def title(self) -> str:
        """The name of the challenge in messages."""
        return f"{self.type} of CURE-TSR"

    def check_dataset(self, dataset: Dataset) -> None:
        """Refuse in-distribution images other than those whose folders hold the challenge."""
        if not isinstance(dataset, CureTsr) or dataset.name != self.dataset:
            raise GradbenchError(
                f"{self.title} lies beside the signs of dataset={self.dataset} and is no "
                f"challenge for {dataset.name}: the suite cure_like makes its like of any images"
            )

    def find(self, request: ImageRequest) -> ImageSet:
        """Return the images of a level whose challenge-free twins are measured."""
        clean, dataset = request.clean, request.dataset
        raw = dataset.challenged(clean.split, self.type, request.level, request.data)
        twins = dict(zip(clean.groups.tolist(), clean.sources.tolist()))
        groups = dataset.sources_and_groups(raw, clean.split)[1]
        rows = np.flatnonzero([group in twins for group in groups])
        folder = folder_of([*FOLDERS].index(self.type) + 1, request.level)
        if not len(rows):
            raise MissingData(
                f"none of the {len(groups):,} images of {folder} is a twin of the {len(clean):,} "
                f"measured ones of {FREE}"
            )
        note = "of a part of the set" if clean.status == "part" else ""
        if len(rows) < len(clean):
            note = f"twins of {len(rows):,} of {len(clean):,} images of {FREE}"
        images = ImageSet(
            name=request.name,
            split=clean.split,
            images=raw.images.take(rows),
            labels=raw.labels[rows],
            sources=np.array([twins[groups[row]] for row in rows]),
            groups=groups[rows],
            classes=clean.classes,
            status="part" if note else "official",
            note=note,
        )
        return resize_to(images, clean.shape)
