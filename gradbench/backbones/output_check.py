"""Tries a network out: its logits must be finite and depend on the image alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from gradbench.backbones.backbone import Backbone
from gradbench.data.imageset import ImageSet, to_float
from gradbench.errors import GradbenchError
from gradbench.support.code_keys import is_external
from gradbench.support.external import (
    describe_exception,
    external_line,
    preserve_process_state,
    seed_process,
)
from gradbench.support.progress import step

TRIED_IMAGES = 4
"""Images that are passed together and alone."""


def check_outputs(backbone: Backbone, test: ImageSet) -> None:
    """Pass a few test images through a network in evaluation mode, together and alone.

    Raises:
        GradbenchError: unless it gives one finite logit for each class, which depend on the image
            alone.
    """
    pixels = to_float(test.images[:TRIED_IMAGES]).to(backbone.device)
    classes = len(backbone.classes)
    before = set(backbone.network.state_dict())
    trying = step("trying the network on a few images")
    with network_faults(backbone), torch.inference_mode(), preserve_process_state(), trying:
        try:
            first = backbone(pixels[:1])
        except RuntimeError as fault:
            place = external_line(fault)
            raise GradbenchError(
                f"the backbone cannot take images of shape {test.shape} from {test.name}: "
                f"{str(fault).splitlines()[0]}{f' in {place}' if place else ''}"
            ) from fault
        if new := sorted(set(backbone.network.state_dict()) - before):
            raise GradbenchError(
                f"the backbone registers {', '.join(new[:3])} in its first pass, too late for "
                "training and loading: register it in __init__"
            )
        if first.shape != (1, classes):
            raise GradbenchError(
                f"the backbone gives outputs of shape {tuple(first.shape[1:])} for an image, "
                f"{test.name} has {classes} classes"
            )
        seed_process(1)  # so that a network that draws random numbers gives other logits
        together, last = backbone(pixels), backbone(pixels[-1:])
        if together.shape != (len(pixels), classes):
            raise GradbenchError(
                f"the backbone gives outputs of shape {tuple(together.shape)} for {len(pixels)} "
                f"images instead of {(len(pixels), classes)}"
            )
    if not together.isfinite().all():
        raise GradbenchError(
            "the backbone gives logits that are NaN or infinite: look for such values in its "
            "weights, and in dataset.mean and dataset.std"
        )
    # the relative error that another batch size may bring
    tolerance = 1e-3 if together.device.type == "cpu" else 1e-2
    if together.dtype not in (torch.float32, torch.float64):
        tolerance = 1e-1
    tolerance *= float(together.abs().max())
    for row, alone in ((0, first), (-1, last)):
        gap = float((alone[0] - together[row]).abs().max())
        if gap > tolerance:
            raise GradbenchError(
                f"the backbone gives an image other logits alone than among {len(pixels)} (by "
                f"{gap:.3g}): it draws random numbers, or mixes the images of a batch, as batch "
                "norm without running statistics does"
            )


@contextmanager
def network_faults(backbone: Backbone) -> Iterator[None]:
    """Turn an exception from a network's code from outside into one sentence with its line."""
    try:
        yield
    except GradbenchError:
        raise
    except Exception as fault:
        kinds = {type(module) for module in backbone.network.modules()}
        if not (is_external(*kinds) and external_line(fault)):
            raise
        name = type(backbone.network).__qualname__
        raise GradbenchError(f"the backbone {name} {describe_exception(fault)}") from fault
