"""The logits of f with active dropout."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from gradbench.backbones.backbone import Backbone
from gradbench.errors import GradbenchError
from gradbench.outputs.base import BatchContext, Output
from gradbench.outputs.read import BATCH
from gradbench.support.external import preserve_process_state, seed_process

KINDS = (
    *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d),
    *(nn.AlphaDropout, nn.FeatureAlphaDropout),
)


class DropoutLogits(Output):
    """`dropout_logits/<passes>`: the logits of passes in which dropout is active, (B, S, classes).

    Only modules of dropout are active, all else is in evaluation mode. An image passes by itself,
    S times at once, with random numbers that are a function of its pixels: images beside it change
    nothing, and on a device of one kind the values can be had again.

    Args:
        passes: S, at least 2.

    Raises:
        GradbenchError: for another number; with a network that has no module of dropout.
    """

    parameters = ("passes",)

    def __init__(self, passes: str | int):
        if not str(passes).isdecimal() or int(passes) < 2:
            raise GradbenchError(f"dropout_logits/{passes}: write a whole number from 2")
        self.passes = int(passes)

    def of_network(self, backbone: Backbone) -> Sequence[Output]:
        """Return the output itself, if the network has dropout."""
        if not dropout_modules(backbone):
            raise GradbenchError(
                f"{type(backbone.network).__name__} has no dropout (no module like "
                f"torch.nn.Dropout with p > 0): leave out the detectors that read {self.name}"
            )
        return [self]

    def read(self, context: BatchContext) -> Tensor:
        """Return the logits."""
        backbone, rows = context.backbone, []
        sizes = [min(BATCH, self.passes - done) for done in range(0, self.passes, BATCH)]
        with preserve_process_state(), _active(dropout_modules(backbone)), torch.no_grad():
            for image in context.images:
                seed_process(seed := _seed(image))
                if image.device.type not in ("cpu", "cuda"):  # which that leaves out
                    torch.get_device_module(image.device).manual_seed(seed)
                rows.append(torch.cat([backbone(image.repeat(s, 1, 1, 1)) for s in sizes]))
        return torch.stack(rows)


def dropout_modules(network: nn.Module) -> list[nn.Module]:
    """Return the modules of a network that drop anything when they are active."""
    return [module for module in network.modules() if isinstance(module, KINDS) and module.p > 0]


@contextmanager
def _active(modules: Sequence[nn.Module]) -> Iterator[None]:
    before = [module.training for module in modules]
    try:
        for module in modules:
            module.training = True
        yield
    finally:
        for module, training in zip(modules, before):
            module.training = training


def _seed(image: Tensor) -> int:
    pixels = image.float().cpu().contiguous().numpy().tobytes()
    return int.from_bytes(hashlib.blake2b(pixels, digest_size=7).digest(), "little")
