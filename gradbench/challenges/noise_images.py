"""Images of nothing but noise."""

from __future__ import annotations

import numpy as np
import torch

from gradbench.challenges.base import External, ImageRequest
from gradbench.challenges.counter import image_keys, normal, uniform
from gradbench.data.imageset import ImageSet, LazyImages, source_ids, to_grid
from gradbench.errors import GradbenchError, unknown

DISTRIBUTIONS = ("uniform", "gaussian")


class NoiseImages(External):
    """`count` images whose pixels and channels are independent (Liang, Li and Srikant 2018).

    `uniform` on [0, 1], or `gaussian` with mean 0.5 and deviation `sigma` (1 in the paper), cut to
    [0, 1]; both rounded to the 1/255 grid. Drawn on the processor from (seed, distribution, image),
    so the same bits everywhere.
    """

    kind = "ood"

    def __init__(self, distribution: str, count: int = 10000, sigma: float = 1.0):
        if distribution not in DISTRIBUTIONS:
            raise unknown("distribution of noise images", distribution, DISTRIBUTIONS)
        if type(count) is not int or count < 10:
            raise GradbenchError(f"noise images count={count}: a whole number, at least 10")
        if not sigma > 0:
            raise GradbenchError(f"noise images sigma={sigma}: choose a value above 0")
        self.distribution, self.count, self.sigma = distribution, count, sigma

    def find(self, request: ImageRequest) -> ImageSet:
        """Return the images, drawn whenever they are read."""
        shape = request.clean.shape
        family = f"{self.distribution}_noise_images"

        def read(rows: np.ndarray) -> np.ndarray:
            keys = image_keys(request.seed, family, map(str, rows))
            if self.distribution == "uniform":
                return uniform(keys, shape).mul_(256).to(torch.uint8).numpy()
            return to_grid(normal(keys, shape).mul_(self.sigma).add_(0.5)).numpy()

        words = "uniform on 0 to 255"
        if self.distribution == "gaussian":
            words = f"normal, mean 0.5, deviation {self.sigma:g}, cut to [0, 1]"
        return ImageSet(
            name=request.name,
            split="drawn",
            images=LazyImages(read, (self.count, *shape)),
            labels=np.zeros(self.count, np.int64),
            sources=source_ids(request.name, "drawn", self.count),
            status="generated",
            note=f"independent pixels, {words}",
        )
