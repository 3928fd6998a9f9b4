"""One image at a time: the check that a batch is what it seems, and the exact fallback."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from gradbench.errors import GradbenchError
from gradbench.gradients.guard import close, without_callers_hooks
from gradbench.gradients.recorder import Call, Recorder
from gradbench.gradients.rules import squared_rows


def forward_alone(model: nn.Module, image: Tensor, together: Tensor) -> Tensor:
    """Return the output for one image (1, C, H, W), with the caller's hooks suspended.

    Args:
        model: the network.
        image: one image.
        together: the output for this image as computed in a batch, (1, ...).

    Raises:
        GradbenchError: when the two outputs differ.
    """
    with without_callers_hooks(model):
        alone = model(image.clone())
    if alone.numel() == together.numel():
        alone = alone.reshape(together.shape)
        if close(alone.detach(), together):
            return alone
    raise GradbenchError(
        "the output for an image alone differs from its output in a batch: the network mixes the "
        "images of a batch, or a forward hook that was placed on it changes its output"
    )


class Witness:
    """Says which calls of a batch hold one image per row, from a forward pass of one image.

    A first dimension of length B may be something else (tokens first, say). With one image alone
    the batch dimension has length 1 and the row of image 0 holds the same values.
    """

    def __init__(self, model: nn.Module, image: Tensor, together: Tensor, parameters: Sequence):
        recorder = Recorder(parameters)
        with recorder:
            forward_alone(model, image, together)
        self.alone: dict[Tensor, list[Tensor]] = {}
        for call in recorder.calls:
            for parameter in call.rules:
                self.alone.setdefault(parameter, []).append(call.x)
        self.verdicts: dict[tuple, bool] = {}

    def batched(self, call: Call) -> bool:
        """Whether rows of the call's input are images; decided once per parameter and shape."""
        parameter = next(iter(call.rules))
        key = (parameter, call.x.shape[1:])
        if key not in self.verdicts:
            first = call.x[:1]
            self.verdicts[key] = any(
                x.shape == first.shape and close(x, first) for x in self.alone.get(parameter, ())
            )
        return self.verdicts[key]


def squared_norms_alone(
    model: nn.Module,
    images: Tensor,
    outputs: Tensor,
    loss: Callable[[Tensor], Tensor],
    parameters: Sequence[Tensor],
) -> Tensor:
    """Squared gradient norms by one backward pass per image, (B, number of parameters).

    Args:
        model: the network.
        images: (B, C, H, W).
        outputs: its outputs for the batch, as a check.
        loss: function from outputs to one value per image.
        parameters: the parameters to take gradients of; all of them require one.
    """
    rows = []
    for image, together in zip(images.split(1), outputs.split(1)):
        value = loss(forward_alone(model, image, together)).sum()
        gradients = torch.autograd.grad(value, parameters, allow_unused=True)
        norms = [together.new_zeros(1) if g is None else squared_rows(g[None]) for g in gradients]
        rows.append(torch.stack([norm[0].double() for norm in norms]))
    return torch.stack(rows)
