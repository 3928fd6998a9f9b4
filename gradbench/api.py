"""A benchmark from Python: images in memory and any torch model, no command line, no files."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from gradbench.backbones.backbone import digest
from gradbench.backbones.devices import set_exact_arithmetic
from gradbench.backbones.trained_network import TrainedNetwork
from gradbench.challenges.base import External, ImageRequest
from gradbench.config import compose
from gradbench.data.imageset import ImageSet
from gradbench.data.in_distribution import InDistribution, Provenance
from gradbench.errors import GradbenchError
from gradbench.predict.image_detector import Images, as_backbone, labelled_images
from gradbench.report.finished_run import FinishedRun
from gradbench.run.context import NetworkContext
from gradbench.run.experiment import Cell, Experiment, build_experiment
from gradbench.run.fitting import learns
from gradbench.run.results import Results
from gradbench.run.rows import read_csv
from gradbench.run.run import evaluate_network
from gradbench.run.summary import all_rows
from gradbench.store import Store

if TYPE_CHECKING:
    import pandas

QUIET = ("challenges=[]", "controls.round_trip=false", "controls.memorisation=false")
"""Settings of every call: what they leave out needs files, or training images."""


class _Given(External):
    """A challenge of images that are there already."""

    kind = "ood"

    def __init__(self, images: ImageSet):
        self.images = images

    def find(self, request: ImageRequest) -> ImageSet:
        return self.images


def evaluate(
    model: nn.Module,
    normal: Images,
    abnormal: Mapping[str, Images],
    detectors: str | Sequence[str] = ("msp", "knn", "gradient_fused"),
    fit: Images | None = None,
    *,
    protocol: str = "unsupervised",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    settings: Sequence[str] = (),
    dirs: Sequence[str | Path] = (),
    store: str | Path | None = None,
) -> pandas.DataFrame:
    """Measure how well detectors tell abnormal images from normal ones, with controls.

    Args:
        model: from images to logits, in evaluation mode.
        normal: (N, C, H, W), floats in [0, 1] or uint8, or a loader; it may yield labels, which
            give the row of the model's accuracy.
        abnormal: the same by the name of each challenge.
        detectors: names, as `gradbench list detectors` gives them.
        fit: clean images that are not measured, for detectors that learn from such; labels come
            from a loader of pairs.
        protocol: `unsupervised`, or `grouped` for detectors that learn from challenges.
        mean: of each channel, taken off the pixels before the model; None where the model takes
            pixels in [0, 1].
        std: likewise, what they are divided by then.
        settings: further settings of `gradbench run`, such as `evaluation.replicates=2000`.
        dirs: folders of the user's own configuration files.
        store: folder that keeps outputs and scores for the next call; None to keep nothing.

    Returns:
        The rows of a run, see `gradbench.run.rows`: AUROC and other metrics in percent with 95 %
        intervals, differences between detectors, controls.

    Raises:
        GradbenchError: for images that the model does not take, an unknown name, or a detector
            that needs images which are not given.
    """
    set_exact_arithmetic()
    names = detectors if isinstance(detectors, str) else ",".join(detectors)
    words = [*QUIET, f"detectors=[{names}]", f"protocol={protocol}"]
    words += ["name=evaluate", "model.hold_out=0", *settings]
    dirs = [Path(folder) for folder in dirs]
    experiment = build_experiment(compose(words, dirs), dirs)
    normals = labelled_images("normal", normal)
    backbone = as_backbone(model, normals.images.shape, mean, std)
    clean = _clean_images(experiment, normals.images, fit)
    sets = {name: labelled_images(name, images).images for name, images in abnormal.items()}
    for name, images in (*sets.items(), ("fit", clean.train)):
        if images.shape != backbone.shape:
            raise GradbenchError(
                f"{name} holds images of shape {images.shape}: the model takes {backbone.shape}"
            )
    cells = tuple(Cell(name, _Given(images)) for name, images in sets.items())
    experiment = replace(experiment, cells=cells)
    network = TrainedNetwork(backbone, digest(backbone), "in memory", None, {})
    results = Results(experiment, clean)
    with tempfile.TemporaryDirectory() if store is None else nullcontext(store) as folder:
        context = NetworkContext(experiment, clean, network, experiment.seeds[0], Store(folder))
        results.add_network(context, normals.has_labels)
        evaluate_network(context, results)
        results.check_measured()
        results.rows = all_rows(results)
    return results.frame()


def _clean_images(experiment: Experiment, normal: ImageSet, fit: Images | None) -> InDistribution:
    """Return the clean images by role; those to fit on are the bank and the hold-out."""
    detectors = {name: experiment.detector(name) for name in experiment.detectors}
    # whether the model was trained on these images, only the caller knows
    provenance = Provenance(unseen=False, trained=False, reason="the caller gave them")
    if fit is not None:
        fit_images = labelled_images("fit", fit)
        for name, detector in detectors.items():
            if "labels" in detector.bank_reads and not fit_images.has_labels:
                raise GradbenchError(f"{name} reads labels: give fit as a loader of pairs")
        return InDistribution(fit_images.images, fit_images.images, normal, normal, provenance)
    needing = [name for name, detector in detectors.items() if learns(detector)]
    if needing:
        raise GradbenchError(f"{needing[0]} learns from clean images: give fit=IMAGES")
    nothing = normal.select(np.empty(0, dtype=int), "fit")
    return InDistribution(nothing, nothing, normal, normal, provenance)


def load_results(path: str | Path) -> pandas.DataFrame:
    """Return the rows of a finished run: its folder, or a file of rows.

    Raises:
        GradbenchError: if there is no such run, or its rows are damaged.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise GradbenchError(f"there is no run at {path}: name the folder of a finished run")
    return read_csv(path) if path.is_file() else FinishedRun(path).frame
