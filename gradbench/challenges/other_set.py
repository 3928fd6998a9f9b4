"""Images of another dataset, brought to the shape of the in-distribution images."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gradbench.challenges.base import Challenge
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

    def bring(self, images: ImageSet, shape: tuple[int, int, int], name: str) -> ImageSet:
        """Return images of the other set at the in-distribution shape, under a name of their own.

        Args:
            images: as they are.
            shape: (C, H, W) wanted.
            name: of the challenge.
        """
        fitted = fit_to(images, shape, self.filter, self.antialias, self.mode)
        return replace(fitted, name=name)
