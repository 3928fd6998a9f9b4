"""Where the gradient of f's largest logit points, among the mean gradients of the classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gradbench.backbones.backbone import Backbone
from gradbench.data.imageset import ImageSet, to_float
from gradbench.errors import GradbenchError, unknown
from gradbench.gradients import mean_gradients
from gradbench.outputs.base import Alignment, BatchContext, Needs, Output
from gradbench.outputs.layers import last_stage
from gradbench.support.progress import Progress

TENSORS = ("last_stage", "all")
MOST = 2**28
"""Numbers that the mean gradients of all classes may take, a gibibyte."""


class ClassAlignments(Output):
    """`class_alignments/<tensors>`: |g_t|^2, then <g_t, m_ct> for every class c, (B, 1 + C, d).

    g_t is the gradient of the image's largest logit with respect to parameter tensor t, m_ct the
    mean of such gradients over f's training images of class c, by their labels. The d columns
    are the chosen tensors in the network's order. The product of two classes' means is
    learned as `gram`, (d, C, C) in float64.

    Args:
        tensors: `last_stage`: those between the last two of f's feature layers and the last
            linear layer; or `all` of the network.
        images: training images behind the means, at most, class-stratified.

    Raises:
        GradbenchError: for another choice, images below 1, or means too large to be kept.
    """

    parameters = ("tensors",)

    def __init__(self, tensors: str, images: int = 5000):
        if tensors not in TENSORS:
            raise unknown("choice of tensors", str(tensors), TENSORS)
        if not isinstance(images, int) or images < 1:
            raise GradbenchError(f"class_alignments images={images}: a whole number from 1")
        self.tensors, self.learns_from = tensors, images
        self._alignment: Alignment | None = None

    @property
    def needs(self) -> Needs:
        """Products with the means, once they are learned."""
        return Needs(alignments=(self._aligned(),) if self.learned else ())

    def learn(self, backbone: Backbone, images: ImageSet) -> dict[str, Tensor]:
        """Return the mean gradients, `mean/<parameter>` (C, *shape), and `gram`."""
        names = self._names(backbone)
        classes, sizes = len(backbone.classes), dict(backbone.named_parameters())
        if classes * sum(sizes[name].numel() for name in names) > MOST:
            raise GradbenchError(
                f"class_alignments/{self.tensors}: the mean gradients of {classes} classes are too "
                "large to be kept" + ", choose last_stage" * (self.tensors == "all")
            )
        if not 0 <= images.labels.min() <= images.labels.max() < classes:
            raise GradbenchError(
                f"{self.name}: {images.name} has labels from {images.labels.min()} to "
                f"{images.labels.max()}, f tells {classes} classes apart"
            )
        means = {name: torch.zeros(classes, *sizes[name].shape) for name in names}
        with Progress("mean gradients of the classes", len(images)) as progress:
            for label in np.unique(images.labels):
                rows = np.flatnonzero(images.labels == label)
                pixels = to_float(images.images[rows])
                options = {"loss": largest_logit, "parameters": names}
                found = mean_gradients(backbone, pixels, torch.zeros(len(rows)).long(), **options)
                for name in names:
                    means[name][int(label)] = found[name][0].float().cpu()
                progress.advance(len(rows))
        rows = [means[name].double().flatten(1) for name in names]
        learned = {f"mean/{name}": mean for name, mean in means.items()}
        return learned | {"gram": torch.stack([row @ row.T for row in rows])}

    def read(self, context: BatchContext) -> Tensor:
        """Return squared norms and products."""
        found = context.alignments(self._aligned())
        return torch.cat([found.squared_norms[:, None], found.products.transpose(1, 2)], dim=1)

    def _names(self, backbone: Backbone) -> Sequence[str]:
        if self.tensors == "last_stage":
            return last_stage(backbone)
        return [name for name, _ in backbone.named_parameters()]

    def _aligned(self) -> Alignment:
        if not self.learned:
            raise GradbenchError(f"{self.name} is read before it has learned the classes' means")
        if self._alignment is None or self._alignment.origin is not self.learned:
            means = {
                name.removeprefix("mean/"): v
                for name, v in self.learned.items()
                if name.startswith("mean/")
            }
            self._alignment = Alignment(means, largest_logit, self.learned)
        return self._alignment


def largest_logit(logits: Tensor) -> Tensor:
    """Return the largest logit of every image, (B,)."""
    return logits.gather(1, logits.argmax(1, keepdim=True))[:, 0]
