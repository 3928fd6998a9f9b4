"""The time of the passes of one detector alone; those of a run serve many at once."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

from gradbench.backbones.backbone import Backbone
from gradbench.data.imageset import ImageSet, to_float
from gradbench.gradients.memory import in_chunks
from gradbench.methods.base import Method, outputs_among
from gradbench.outputs.base import Output
from gradbench.outputs.read import BATCH, compute_outputs
from gradbench.run.context import NetworkContext
from gradbench.run.results import Results
from gradbench.store import Key
from gradbench.support.progress import step

VERSION = 1


def time_passes(context: NetworkContext, results: Results) -> None:
    """Time the passes of one batch for every detector of the run, once it is fitted.

    Methods that take the same passes share one product.
    """
    batch = context.images.normal.select(range(min(BATCH, len(context.images.normal))))
    inputs = {"weights": context.f.weights, "images": batch.fingerprint}
    for name in context.experiment.detectors:
        detector = costliest(results, name, context.seed)
        if detector is None or not (settings := passes_settings(detector)):
            continue
        named = context.outputs_of(settings["reads"])
        others = {output.name: output.weights for output in named if output.weights}

        def build(
            _folder: Path, _: Path, detector: Method = detector, named: list[Output] = named
        ) -> dict:
            reads, _ = context.lessons.taught(named)
            spent = seconds(context.f.backbone, batch, detector, reads)
            return {"images": len(batch), "pass_seconds": spent}

        with step(f"{name}: timing the passes of {len(batch)} images"):
            context.store.make(Key("passes", VERSION, settings, inputs | others), build)


def costliest(results: Results, name: str, seed: int | None = None) -> Method | None:
    """Return a detector in that state of a run in which scoring an image takes the most passes.

    Fits may differ: some choose to do without a step. None where it was never fitted. Looked at are
    the fits of the network of a seed, or of all.
    """
    build = partial(results.experiment.detector, name)
    if type(build()).perturbed_passes is Method.perturbed_passes:  # told by its settings
        return build()
    places = [p for p in results.states if p[2] == name and seed in (None, p[0])]
    if not places and not build().learns_from_challenges:
        return build()
    fitted = (build().load(results.states[place]) for place in places)
    return max(fitted, key=lambda d: (d.pass_count.forward, d.pass_count.backward), default=None)


def passes_settings(detector: Method) -> dict[str, Any]:
    """Return what is read of f to score an image, JSON-able; nothing where f is not needed."""
    reads = sorted({*outputs_among(detector.reads)})
    perturbed = [
        [one.source, dict(one.loss.settings()), list(one.magnitudes)]
        for one in detector.perturbed_passes.values()
    ]
    if not perturbed:
        return {"reads": reads} if reads else {}
    return {"reads": reads, "perturbed": perturbed}


def seconds(backbone: Backbone, batch: ImageSet, detector: Method, reads: list[Output]) -> float:
    """Return the time of the passes over a batch, the second time: the first looks at f."""
    rows = slice(0, len(batch))
    for _ in range(2):
        begun = time.monotonic()
        if reads:
            compute_outputs(backbone, batch, rows, reads)
        for one in detector.perturbed_passes.values():
            look = partial(_look, one, backbone)
            in_chunks(look, to_float(batch.images[rows]), BATCH)
    return time.monotonic() - begun


def _look(one, backbone: Backbone, pixels):
    return one(backbone, pixels.to(backbone.device))
