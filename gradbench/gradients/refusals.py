"""Refusals: networks, outputs and losses for which "the gradient of image b" would be wrong.

Everything here guards one assumption: J_b is a function of image b and of the parameters alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from gradbench.errors import GradbenchError
from gradbench.gradients.losses import PairLoss


def refuse_training_mode(model: nn.Module) -> None:
    """Raise a GradbenchError for a normalisation by statistics of the batch."""
    for name, module in model.named_modules():
        if not isinstance(module, _NormBase):
            continue
        where = f"{type(module).__name__} '{name}'" if name else type(module).__name__
        if isinstance(module, _BatchNorm) and module.running_mean is None:
            raise GradbenchError(
                f"{where} has no running statistics, so it uses those of the batch and no image "
                "has a gradient of its own: give it running statistics"
            )
        if module.training and module.running_mean is not None:
            raise GradbenchError(
                f"{where} is in training mode, where it uses and changes statistics: "
                "call model.eval()"
            )


@contextmanager
def refuse_randomness(device: torch.device) -> Iterator[None]:
    """Raise a GradbenchError when the block drew from PyTorch's random numbers.

    No look at the modules finds dropout written as a function, but the generator's state tells.
    """
    before = _random_states(device)
    yield
    if any(not torch.equal(a, b) for a, b in zip(before, _random_states(device))):
        raise GradbenchError(
            "the forward pass draws random numbers (active dropout or noise), so its gradients "
            "are not a function of the image: switch that off, usually by model.eval()"
        )


def _random_states(device: torch.device) -> list[Tensor]:
    states = [torch.get_rng_state()]
    if device.type != "cpu":
        arguments = (device,) if device.type == "cuda" else ()
        states.append(torch.get_device_module(device).get_rng_state(*arguments))
    return states


def check_outputs(outputs: Tensor, images: Tensor, model: nn.Module) -> None:
    """Raise a GradbenchError unless the network returned one finite row of numbers per image."""
    if not isinstance(outputs, Tensor) or outputs.ndim < 1 or len(outputs) != len(images):
        got = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise GradbenchError(
            f"the network must return one row of outputs per image ({len(images)}), but gave {got}"
        )
    if outputs.is_complex() or outputs.layout != torch.strided:
        raise GradbenchError(
            f"the network's outputs are {short_name(outputs.dtype)}, {short_name(outputs.layout)}: "
            "real numbers in an ordinary tensor are wanted"
        )
    if torch.isfinite(outputs).all():
        return
    culprits = [
        f"parameter {n} holds" for n, p in model.named_parameters() if not p.isfinite().all()
    ]
    culprits += [] if images.isfinite().all() else ["the images hold"]
    raise GradbenchError(
        "the network's outputs are not all finite: "
        + (f"{culprits[0]} NaN or infinity" if culprits else "images and parameters are")
    )


def short_name(name: torch.dtype | torch.layout) -> str:
    """Return the name of a number format or layout without `torch.`."""
    return str(name).removeprefix("torch.")


def per_image_loss(loss: PairLoss, images: Tensor, outputs: Tensor, known: bool) -> Tensor:
    """Return loss(images, outputs), checked: (B,), finite, with a gradient, of each image alone.

    Losses that are `known`, those of `LOSSES`, do not mix images.
    """
    with refuse_randomness(outputs.device):
        values = loss(images, outputs)
    if not isinstance(values, Tensor) or values.shape != outputs.shape[:1]:
        got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise GradbenchError(
            f"the loss must return one value per image, shape ({outputs.shape[0]},), but gave {got}"
        )
    if values.is_complex():
        raise GradbenchError("the loss is complex: its gradient is that of a real number")
    if outputs.requires_grad and not values.requires_grad:
        raise GradbenchError("the loss does not depend on the outputs of the network")
    if not values.isfinite().all():
        raise GradbenchError("the loss is not finite for some image")
    if not known and outputs.requires_grad and len(outputs) > 1:
        refuse_mixing_loss(loss, images, outputs)
    return values


def refuse_mixing_loss(loss: PairLoss, images: Tensor, outputs: Tensor) -> None:
    """Raise a GradbenchError unless the loss of an image is a function of its own outputs alone.

    Two tests, as either misses something. Weights that are powers of two scale the gradient of each
    image exactly, unless one image's loss reaches another's outputs. And the first and the last
    image alone have the same value and gradient as among the others, unless a detached term mixes.
    """
    # A copy, in float32 at least: powers of two are not exact among the smallest halves.
    exact = torch.promote_types(outputs.dtype, torch.float32)
    copied = outputs.detach().to(exact, copy=True).requires_grad_()
    values = loss(images, copied)
    weights = 2.0 ** (torch.arange(len(copied), device=copied.device) % 3)
    sums = [values.sum(), (values * weights.to(values)).sum()]
    plain, scaled = (
        torch.autograd.grad(s, copied, retain_graph=True, allow_unused=True)[0] for s in sums
    )
    if plain is None:
        return
    tolerances = {torch.float64: 1e-10, torch.float32: 1e-5}
    expected = plain * weights.to(plain).view(-1, *(1,) * (plain.ndim - 1))
    fits = close(scaled, expected, tolerances)
    for i in (0, len(copied) - 1):
        one = copied.detach()[i : i + 1].clone().requires_grad_()
        value = loss(images[i : i + 1], one)
        (gradient,) = torch.autograd.grad(value.sum(), one, allow_unused=True)
        fits = fits and close(value.detach(), values.detach()[i : i + 1], tolerances)
        fits = fits and gradient is not None and close(gradient, plain[i : i + 1], tolerances)
    if not fits:
        raise GradbenchError(
            "the loss mixes the images of a batch: its value for one image must depend on the "
            "outputs for that image alone"
        )


# Another size of the batch takes other kernels, which round otherwise.
ROUNDING = {torch.float64: 1e-6, torch.float32: 1e-3}


def close(a: Tensor, b: Tensor, tolerances: dict[torch.dtype, float] = ROUNDING) -> bool:
    """Whether a and b agree within the tolerance of their precision, relative to the largest."""
    if a.shape != b.shape or a.numel() == 0:
        return a.shape == b.shape
    tolerance = tolerances.get(b.dtype, 1e-1)
    if tolerances is ROUNDING and b.dtype == torch.float32 and b.device.type != "cpu":
        tolerance = 1e-2  # TensorFloat-32
    if torch.is_autocast_enabled(b.device.type):
        tolerance = 1e-1
    return bool((a - b).abs().max() <= tolerance * b.abs().max())
