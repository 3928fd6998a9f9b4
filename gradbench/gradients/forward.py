"""The outputs of a network as the engine computes them, without gradients."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from gradbench.gradients import guard, kept
from gradbench.gradients import precision as formats
from gradbench.gradients.asked import Options, prepare
from gradbench.gradients.door import taking
from gradbench.gradients.memory import in_chunks
from gradbench.gradients.single import forward_alone, try_channels_last
from gradbench.gradients.state import same_buffers


def outputs(
    model: nn.Module,
    images: Tensor,
    *,
    chunk: int | None = None,
    precision: str | None = None,
    channels_last: bool | None = None,
) -> Tensor:
    """Return the network's outputs for all images, the same bits as those of `squared_norms`.

    Args:
        model: network in evaluation mode.
        images: images first.
        chunk: see `squared_norms`, as are precision and channels_last.
        precision: as there.
        channels_last: as there.

    Returns:
        (B, ...), on the device of the images.

    Raises:
        GradbenchError: for images, settings or a mode that `squared_norms` refuses too.
    """
    ready = prepare(
        model, images, Options(chunk=chunk, precision=precision, channels_last=channels_last)
    )
    with torch.no_grad(), formats.arithmetic(precision, ready.device), same_buffers(ready.model):
        first = ready.images[:1].to(ready.device)
        alone = partial(forward_alone, ready.model)
        with taking(ready.model, first):
            found, last = try_channels_last(alone, first, ready.channels_last)
        guard.check_outputs(found, first, ready.model)
        pass_through = _Pass(ready.model, ready.device, last)
        parts, _ = in_chunks(pass_through, ready.images, ready.chunk)
    return torch.cat(parts).to(images.device)


class _Pass:
    """Runs the network on one chunk after the other, laid out as the engine would."""

    def __init__(self, model: nn.Module, device: torch.device, channels_last: bool):
        self.model, self.device, self.channels_last = model, device, channels_last

    def __call__(self, images: Tensor) -> Tensor:
        images = images.to(self.device)
        with guard.refuse_randomness(self.device), kept.passing(self.model):
            found, self.channels_last = try_channels_last(
                lambda laid_out: self.model(laid_out.clone()), images, self.channels_last
            )
        guard.check_outputs(found, images, self.model)
        return found
