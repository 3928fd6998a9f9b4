"""Outputs of a network that are drawn instead of read, alike in name, shape, mean and spread."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gradbench.backbones.backbone import Backbone
from gradbench.data.imageset import ImageSet, source_ids
from gradbench.methods.base import BANK_EXTRAS, Detector, Outputs, Samples
from gradbench.outputs.extract import select_outputs
from gradbench.outputs.layers import head_tensors
from gradbench.outputs.read import compute_outputs

CLASS = 1.0
"""Deviation of the class means, in units of the spread within a class."""
ABNORMAL = 1.0
"""How far abnormal images lie off, in the same unit."""


class Drawn:
    """Drawn outputs of training images, hold-out, and both sides of a challenge.

    Args:
        f: the network.
        images: from which mean and spread of its outputs are taken.
        sizes: images of a side, of the training images, and of the hold-out.
        detectors: that will read them.
    """

    def __init__(
        self,
        f: Backbone,
        images: ImageSet,
        sizes: tuple[int, int, int],
        detectors: Sequence[Detector],
    ):
        self.sizes, self.head = sizes, head_tensors(f)
        self.classes = self.head["head/weight"].shape[0]
        names = {n for d in detectors for n in (*d.reads, *d.bank_reads, *d.hold_out_reads)}
        names = sorted(names.difference(BANK_EXTRAS))
        read = compute_outputs(f, images, slice(0, len(images)), names).values
        self._like = {name: _Like(values, self.classes) for name, values in read.items()}
        self.groups = source_ids("drawn", "test", sizes[0])
        self._normal, self._abnormal = (
            self._of(sizes[0], side, side * ABNORMAL) for side in (0, 1)
        )
        self._bank, self._aside = self._of(sizes[1], 2), self._of(sizes[2], 3)

    def sides(self, detector: Detector) -> tuple[Outputs, Outputs]:
        """Return what a detector reads of the normal and of the abnormal images."""
        return tuple(self._some(o, detector.reads) for o in (self._normal, self._abnormal))

    def bank(self, detector: Detector) -> Outputs:
        """Return what it reads of training images and of the last layer."""
        head = {n: t for n, t in self.head.items() if n in detector.bank_reads}
        return self._some(self._bank, detector.bank_reads) | head

    def hold_out(self, detector: Detector) -> Outputs:
        """Return what it reads of the hold-out."""
        return self._some(self._aside, detector.hold_out_reads)

    @staticmethod
    def aside(hold_out: Outputs) -> tuple[Samples, Samples]:
        """Return the hold-out as what a detector without challenges is fitted on."""
        return Samples.normal(hold_out), Samples.normal(hold_out)

    def own(self, detector: Detector) -> tuple[Samples, Samples]:
        """Return halves of hold-out images with as many made of them by each of its challenges."""
        clean = min(detector.synthetic_images, self.sizes[2])
        found = []
        for half in range(2):
            count = (clean + half) // 2
            normal = self._of(count, 4 + half)
            abnormal = self._of(count * len(detector.synthetic), 6 + half, ABNORMAL)
            reads = (self._some(side, detector.reads) for side in (normal, abnormal))
            found.append(Samples.join(*reads))
        return tuple(found)

    def _of(self, count: int, seed: int, off: float = 0.0) -> Outputs:
        """Return all outputs of so many images, and their labels."""
        rng = np.random.default_rng(seed)
        labels = torch.from_numpy(rng.integers(0, self.classes, count))
        found = {name: like.draw(labels, off, rng) for name, like in self._like.items()}
        return found | {"labels": labels}

    @staticmethod
    def _some(outputs: Outputs, reads: Sequence[str]) -> dict[str, Tensor]:
        return select_outputs(outputs, [n for n in reads if not n.startswith("head/")])


class _Like:
    """Draws values like some that were read; positive ones by their logarithm."""

    def __init__(self, values: Tensor, classes: int):
        flat = values.double().flatten(1).numpy()
        self.shape, self.positive = values.shape[1:], bool((flat > 0).all())
        flat = np.log(flat) if self.positive else flat
        self.mean, self.spread = flat.mean(0), flat.std(0) + 1e-6
        rng = np.random.default_rng(flat.shape[1])
        self.of_class = CLASS * rng.standard_normal((classes, flat.shape[1]))

    def draw(self, labels: Tensor, off: float, rng: np.random.Generator) -> Tensor:
        """Return (N, ...) float32 values of images of some classes."""
        noise = rng.standard_normal((len(labels), len(self.mean)), dtype=np.float32)
        flat = self.mean + self.spread * (noise + self.of_class[labels.numpy()] + off)
        flat = np.exp(flat) if self.positive else flat
        return torch.from_numpy(flat.astype(np.float32)).reshape(len(labels), *self.shape)
