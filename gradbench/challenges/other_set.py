"""Images of another dataset, resized to the shape of the in-distribution images."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from gradbench.challenges.base import Challenge
from gradbench.data.imageset import ImageSet, join_notes
from gradbench.data.resample import resize_to
from gradbench.data.roles import stratified_subset
from gradbench.errors import GradbenchError


class OtherSet(Challenge):
    """Another dataset, a file of `configs/dataset/`, as out-of-distribution challenge.

    Args:
        dataset: name of the file.
        filter: of the resampling where the shape differs, smoothed before reducing by `antialias`.
        antialias: see `filter`.
        mode: `resize` the whole image, or `crop` the central square first.
        count: class-stratified number of its images, the same ones in every run; None for all.
        settings: changes to the dataset's own settings, for example `path` or `exclude`.
    """

    kind = "ood"
    OWN: ClassVar = ("filter", "antialias", "mode", "count")
    """Settings that are not the dataset's."""

    def __init__(
        self,
        dataset: str,
        filter: str = "bilinear",
        antialias: bool = True,
        mode: str = "resize",
        count: int | None = None,
        **settings: Any,
    ):
        self.dataset = dataset
        self.filter, self.antialias, self.mode = filter, antialias, mode
        if count is not None and (type(count) is not int or count < 10):
            raise GradbenchError(
                f"challenge {dataset} count={count}: a whole number, at least 10, or null for all"
            )
        self.count = count
        self.settings = settings

    def prepare(self, images: ImageSet, shape: tuple[int, int, int], name: str) -> ImageSet:
        """Return images of the other set at a shape (C, H, W), under the name of the challenge.

        Where `count` takes a part of them, the note says so.
        """
        some = stratified_subset(images, self.count)
        fitted = resize_to(some, shape, self.filter, self.antialias, self.mode)
        if len(some) == len(images):
            return replace(fitted, name=name)
        note = f"{len(some):,} of {len(images):,} images"
        status = "part" if fitted.status == "official" else fitted.status
        return replace(fitted, name=name, status=status, note=join_notes(fitted.note, note))
