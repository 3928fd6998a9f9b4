"""Slow and simple ways to the squared gradient norms: the truth in tests, opponents in benchmarks.

Neither shares a formula with the engine. Both take a loss as `as_loss` returns it, from the outputs
of the network (b, N) to one value per image (b,).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from gradbench.errors import GradbenchError
from gradbench.gradients import guard
from gradbench.gradients.door import check_images, network_inside
from gradbench.gradients.losses import PerImage
from gradbench.gradients.state import only_these_require_grad
from gradbench.gradients.unseen import refuse_without_graph


def loop_norms(model: nn.Module, images: Tensor, loss: PerImage) -> Tensor:
    """Return ||dJ_b/dtheta_l||^2 by one ordinary backward pass per image, (B, d).

    Columns stand in the order of `model.named_parameters()`; frozen parameters count like the
    others, one that does not act on the loss gives 0. float32, or float64 where a parameter is.
    The model comes back as it was, without gradients left on it.

    Args:
        model: network in evaluation mode.
        images: (B, C, H, W).
        loss: function from outputs to one value per image.

    Raises:
        GradbenchError: for no images or a model in training mode.
    """
    device, dtype = _check(model, images)
    parameters = list(model.parameters())
    rows = []
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        only_these_require_grad(model, parameters),
    ):
        columns = [i for i, p in enumerate(parameters) if p.requires_grad]
        wanted = [parameters[i] for i in columns]
        for image in images.split(1):
            row = torch.zeros(len(parameters), dtype=dtype, device=device)
            # A copy: networks may change it in place.
            value = loss(model(image.detach().to(device, copy=True))).sum()
            gradients = torch.autograd.grad(value, wanted, allow_unused=True)
            for i, gradient in zip(columns, gradients):
                if gradient is not None:
                    row[i] = gradient.to(dtype).square().sum()
            rows.append(row)
    return torch.stack(rows).to(images.device)


def vmap_norms(model: nn.Module, images: Tensor, loss: PerImage, micro_batch: int = 8) -> Tensor:
    """Return ||dJ_b/dtheta_l||^2 by `vmap(grad)` over a functional call of the network, (B, d).

    The norms are taken inside, yet every gradient of a micro-batch exists at once: its memory is
    `micro_batch` times that of the parameters, and a micro-batch as large as the batch is what
    libraries do. Columns, precision and the state of the model as in `loop_norms`.

    Not every network can be run by `torch.func`: one that writes in place to a buffer or to a
    tensor that does not depend on the image, branches on values (`if x.max() > 0`, `.item()`) or
    keeps its weights elsewhere than in parameters (recurrent layers) raises a RuntimeError there;
    `loop_norms` takes them all.

    Args:
        model: network in evaluation mode.
        images: (B, C, H, W).
        loss: function from outputs to one value per image.
        micro_batch: images whose gradients are held at a time.

    Raises:
        GradbenchError: for no images, a micro-batch below 1 or a model in training mode.
    """
    device, dtype = _check(model, images)
    if micro_batch < 1:
        raise GradbenchError(f"micro_batch {micro_batch}: at least 1")
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    buffers = {name: b.detach() for name, b in model.named_buffers()}
    wanted = {name: p for name, p in parameters.items() if p.is_floating_point()}
    fixed = {name: p for name, p in parameters.items() if name not in wanted}

    def loss_of_one(wanted: dict[str, Tensor], image: Tensor) -> Tensor:
        outputs = functional_call(model, (wanted, fixed, buffers), (image.unsqueeze(0),))
        return loss(outputs).sum()

    def norms_of_one(image: Tensor) -> Tensor:
        gradients = grad(loss_of_one)(wanted, image)
        zero = torch.zeros((), dtype=dtype, device=device)
        squares = {name: g.to(dtype).square().sum() for name, g in gradients.items()}
        return torch.stack([squares.get(name, zero) for name in parameters])

    norms = vmap(norms_of_one, randomness="error")
    with torch.inference_mode(False):
        pieces = images.split(micro_batch)
        rows = [norms(piece.detach().to(device, copy=True)).detach() for piece in pieces]
        return torch.cat(rows).to(images.device)


def _check(model: nn.Module, images: Tensor) -> tuple[torch.device, torch.dtype]:
    """Refuse what has no per-image gradients; return the device and precision of the norms."""
    network_inside(model)
    check_images(images)
    guard.refuse_training_mode(model)
    parameters = list(model.parameters())
    if not parameters:
        raise GradbenchError("the network has no parameters")
    device = parameters[0].device
    with torch.inference_mode(False), torch.enable_grad():
        refuse_without_graph(model, model, images[:1].detach().to(device, copy=True))
    double = any(p.dtype == torch.float64 for p in parameters)
    return device, torch.float64 if double else torch.float32
