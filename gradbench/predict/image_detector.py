"""A detector alone, for use in Python without a run: it reads f by itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from gradbench.backbones.backbone import Backbone, logits_among
from gradbench.challenges.counter import image_keys
from gradbench.config import load_member
from gradbench.data.imageset import ImageSet, source_ids, to_float
from gradbench.data.roles import stratified_subset
from gradbench.errors import GradbenchError
from gradbench.gradients.arguments import naming_rejected_images
from gradbench.methods.base import Detector, Outputs, Samples, learned_among, outputs_among
from gradbench.methods.checked import check_declared, checked
from gradbench.methods.fold_scores import one_thread
from gradbench.outputs.catalogue import OutputCatalogue
from gradbench.outputs.extract import OutputValues, select_outputs
from gradbench.outputs.layers import head_tensors
from gradbench.outputs.learned import Lessons
from gradbench.outputs.read import compute_outputs
from gradbench.predict.pictures import as_array
from gradbench.support.instantiate import instantiate

Images = Tensor | np.ndarray | Iterable
"""(N, C, H, W), floats in [0, 1] or uint8; or a loader that yields such, or (images, labels)."""


class ImageDetector:
    """A detector of images: `ImageDetector("knn").fit(model, clean_images).predict(images)`.

    Args:
        name: of a detector in `configs/detector/`, or in a folder of `dirs`.
        dirs: folders of the user's own configuration files.
        settings: in place of those of its file.

    Raises:
        GradbenchError: for an unknown name or setting.
    """

    def __init__(self, name: str, dirs: Sequence[str | Path] = (), **settings: Any):
        dirs = [Path(folder) for folder in dirs]
        content = load_member("detector", name, dirs) | settings
        self.name, self._catalogue = name, OutputCatalogue(dirs)
        detector = instantiate("detector", name, content, base=Detector)
        check_declared(name, detector, self._catalogue)
        self.detector = checked(name, detector)
        self._backbone: Backbone | None = None
        self._lessons: Lessons | None = None

    def fit(
        self,
        model: nn.Module,
        clean: Images,
        abnormal: Images | None = None,
        *,
        labels: Sequence[int] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        seed: int = 0,
    ) -> Self:
        """Fit the detector on images, and keep the model to predict with.

        Detectors that see no challenge learn from the clean images alone. Of those that learn from
        challenges, one half of each side fits them and the other half chooses their settings.

        Args:
            model: from images to logits, in evaluation mode.
            clean: images that f knows or is to know: its training images, or a hold-out.
            abnormal: for detectors that learn from challenges.
            labels: of the clean images, for detectors that read them; a loader may yield them.
            mean: of each channel, taken off the pixels before the model; None where the model
                takes pixels in [0, 1]. A `Backbone` knows its own.
            std: likewise, what they are divided by then.
            seed: of whatever is random.

        Raises:
            GradbenchError: for images that f does not take, or where something is missing.
        """
        detector = self.detector
        if detector.supervision == "synthetic":
            raise GradbenchError(
                f"{self.name} learns from challenges that a run makes: take gradient, with "
                "abnormal=IMAGES"
            )
        if detector.learns_from_challenges and abnormal is None:
            raise GradbenchError(f"{self.name} learns from challenges: give abnormal=IMAGES")
        clean = labelled_images("clean", clean, labels)
        self._backbone = as_backbone(model, clean.images.shape, mean, std)
        self._lessons = Lessons(self._backbone, "", clean.images, None)
        few = stratified_subset(clean.images, detector.bank_images)
        bank = self._read(replace(clean, images=few), detector.bank_reads)
        hold_out = self._read(clean, detector.hold_out_reads)
        if detector.learns_from_challenges:
            bank |= {f"hold_out/{name}": values for name, values in hold_out.items()}
            sides = clean.images, self._images("abnormal", abnormal)
            fit, choose = (self._samples(sides, half, seed) for half in (0, 1))
            parts = fit, choose if detector.drawn is None else choose.draw(detector.drawn)
        else:
            parts = (Samples.normal(hold_out),) * 2
        with one_thread():
            detector.fit(bank, *parts, seed)
        return self

    def predict(self, images: Images) -> Tensor:
        """Return the scores (N,) of images, float64, higher = more abnormal.

        Raises:
            GradbenchError: before `fit`, or for images that f does not take.
        """
        if self._backbone is None:
            raise GradbenchError(f"{self.name} is not fitted: call fit(model, clean_images) first")
        images = self._images("images", images)
        outputs = self._outputs(images, self.detector.reads)
        for name, one in self.detector.perturbed_passes.items():
            outputs[name] = torch.cat(one.in_batches(self._backbone, to_float(images.images))[0])
        with one_thread():
            return self.detector.predict(outputs).double()

    def _images(self, name: str, images: Images) -> ImageSet:
        images = labelled_images(name, images).images
        if images.shape != self._backbone.shape:
            raise GradbenchError(
                f"{name} are of shape {images.shape}: the model takes {self._backbone.shape}"
            )
        return images

    def _read(self, clean: LabelledImages, names: Sequence[str]) -> dict[str, Tensor]:
        """Return outputs of clean images, and whatever else may stand in `bank_reads`."""
        if "labels" in names and not clean.has_labels:
            raise GradbenchError(f"{self.name} reads labels: give labels=, or a loader of pairs")
        values = self._outputs(clean.images, outputs_among(names))
        if any(name.startswith("head/") for name in names):
            values |= head_tensors(self._backbone)
        learned = learned_among(names)
        outputs = self._catalogue.of_network(self._backbone, learned.values())
        values |= self._lessons.tensors(learned, outputs)
        if "labels" in names:
            values["labels"] = torch.from_numpy(clean.images.labels)
        return values

    def _outputs(self, images: ImageSet, names: Sequence[str]) -> dict[str, Tensor]:
        outputs = self._catalogue.of_network(self._backbone, names)
        ready, faults = self._lessons.taught(outputs)
        read = compute_outputs(self._backbone, images, slice(0, len(images)), ready)
        values = OutputValues(read.values, read.faults | faults)
        return select_outputs(values, [o.name for o in outputs])

    def _samples(self, sides: tuple[ImageSet, ImageSet], half: int, seed: int) -> Samples:
        """Return every second image of both sides in a random order."""
        rows, keys = [], []
        for side in sides:
            key = image_keys(seed, "drawn", side.sources)
            if len(side) < 2:
                raise GradbenchError(f"{side.name}: {self.name} needs at least 2 of these images")
            rows.append(np.sort(np.argsort(key.numpy(), kind="stable")[half::2]))
            keys.append(key[torch.from_numpy(rows[-1])])
        parts = [side.select(r) for side, r in zip(sides, rows)]
        outputs: list[Outputs] = [self._outputs(part, self.detector.reads) for part in parts]
        pixels = torch.cat([to_float(part.images) for part in parts])
        return replace(
            Samples.join(*outputs),
            order=torch.cat(keys),
            passes=lambda one, rows: torch.cat(one.in_batches(self._backbone, pixels[rows])[0]),
        )


@dataclass(frozen=True)
class LabelledImages:
    """Images, and whether their labels were given."""

    images: ImageSet
    has_labels: bool


def labelled_images(
    name: str, images: Images, labels: Sequence[int] | None = None
) -> LabelledImages:
    """Return a tensor, an array or the batches of a loader as an image set.

    Raises:
        GradbenchError: if there is no image, or the labels differ in number.
    """
    in_memory = torch.is_tensor(images) or isinstance(images, np.ndarray)
    pixels, known = [], []
    for batch in [images] if in_memory else images:
        parts = batch if isinstance(batch, list | tuple) else (batch,)
        part, label = (*parts, None)[:2]
        pixels.append(as_array(part, tuple(part.shape[1:])))
        known += [] if label is None else torch.as_tensor(label).tolist()
    if not pixels:
        raise GradbenchError(f"{name}: there is no image")
    array = np.concatenate(pixels)
    known = known if labels is None else torch.as_tensor(labels).tolist()
    if known and len(known) != len(array):
        raise GradbenchError(f"{name}: {len(known)} labels for {len(array)} images")
    values = np.array(known or [0] * len(array), np.int64)
    ids = source_ids(name, "", len(array))
    return LabelledImages(ImageSet(name, "", array, values, ids), bool(known))


def as_backbone(
    model: nn.Module,
    shape: Sequence[int],
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Backbone:
    """Return a model as a backbone for images (C, H, W).

    Raises:
        GradbenchError: if it is no classifier of such images in evaluation mode.
    """
    if not isinstance(model, nn.Module):
        raise GradbenchError(f"model is a {type(model).__name__}: give a torch.nn.Module")
    if any(module.training for module in model.modules()):
        raise GradbenchError("the model is in training mode: call model.eval() first")
    if isinstance(model, Backbone):
        return model
    channels = shape[0]
    mean, std = mean or [0.0] * channels, std or [1.0] * channels
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    black = torch.zeros(1, *shape, device=device)
    with torch.no_grad(), naming_rejected_images(model, black):
        logits = logits_among(model(black))
    if logits.ndim != 2:
        raise GradbenchError("the model gives no logits (N, classes)")
    classes = [str(number) for number in range(logits.shape[1])]
    return Backbone(model, mean, std, classes, shape).eval().to(device)
