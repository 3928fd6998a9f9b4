"""Images of another dataset, brought to the shape of the in-distribution images."""

from __future__ import annotations

from typing import Any

from gradbench.challenges.base import Challenge
from gradbench.data.dataset import Dataset, DataSettings
from gradbench.data.imageset import ImageSet
from gradbench.data.resample import fit_to


class OtherSet(Challenge):
    """Another dataset as out-of-distribution challenge.

    Args:
        dataset: name of a file in `configs/dataset/`.
        filter: of the resampling where the shape differs.
        antialias: smooth before reducing.
        mode: `resize` the whole image, or `crop` the central square first.
        settings: changes to the dataset's own settings, for example `path` or `exclude`.
    """

    kind = "ood"

    def __init__(
        self,
        dataset: str,
        filter: str = "bilinear",
        antialias: bool = True,
        mode: str = "resize",
        **settings: Any,
    ):
        self.dataset = dataset
        self.filter, self.antialias, self.mode = filter, antialias, mode
        self.settings = settings

    def images(self, dataset: Dataset, shape: tuple[int, int, int], data: DataSettings) -> ImageSet:
        """Return the images of the role `challenge`, (N, *shape).

        Raises:
            MissingData: if they are not at hand and cannot be fetched.
        """
        images = dataset.load("challenge", data)
        return fit_to(images, shape, self.filter, self.antialias, self.mode)
