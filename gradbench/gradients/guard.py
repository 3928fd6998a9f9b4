"""What keeps the engine honest: refusals with a reason, and a model that comes back as it was."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.dropout import _DropoutNd

from gradbench.errors import GradbenchError
from gradbench.gradients.losses import OfBoth

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def refuse_training_mode(model: nn.Module) -> None:
    """Raise for a layer whose result depends on the batch or on chance in the mode it is in.

    Raises:
        GradbenchError: naming the layer and the reason.
    """
    for name, module in model.named_modules():
        where = f"{type(module).__name__} '{name}'" if name else type(module).__name__
        if isinstance(module, _BatchNorm) and module.running_mean is None:
            raise GradbenchError(
                f"{where} has no running statistics, so it uses those of the batch and no image "
                "has a gradient of its own: give it running statistics"
            )
        if not module.training:
            continue
        if isinstance(module, _NormBase) and module.running_mean is not None:
            raise GradbenchError(
                f"{where} is in training mode, where it uses and changes statistics: "
                "call model.eval()"
            )
        chance = getattr(module, "p" if isinstance(module, _DropoutNd) else "dropout", 0)
        random = isinstance(module, nn.RReLU) or (isinstance(chance, float) and chance > 0)
        if random:
            raise GradbenchError(
                f"{where} is active in training mode and draws random numbers: call model.eval()"
            )


@contextmanager
def refuse_randomness(device: torch.device) -> Iterator[None]:
    """Raise when the block drew from PyTorch's random numbers (dropout written as a function).

    Raises:
        GradbenchError: when the state of a generator has changed.
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
        module = torch.get_device_module(device)
        arguments = (device,) if device.type == "cuda" else ()
        states.append(module.get_rng_state(*arguments))
    return states


def check_outputs(outputs: Tensor, images: int) -> None:
    """Raise a GradbenchError unless the network returned one finite row per image."""
    if not isinstance(outputs, Tensor) or outputs.ndim < 1 or len(outputs) != images:
        got = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise GradbenchError(
            f"the network must return one row of outputs per image ({images}), but gave {got}"
        )
    if not torch.isfinite(outputs).all():
        raise GradbenchError(
            "the network's outputs are not all finite: look for NaN in its weights or the images"
        )


def per_image_loss(loss: OfBoth, images: Tensor, outputs: Tensor, known: bool) -> Tensor:
    """Return loss(images, outputs), one value per image, checked.

    Args:
        loss: function from images and the network's outputs to (B,).
        images: the images.
        outputs: outputs of the network, images first.
        known: whether the loss is one of this room, which need no check for mixing.

    Raises:
        GradbenchError: for another shape, no gradient, or a value that depends on two images.
    """
    values = loss(images, outputs)
    if not isinstance(values, Tensor) or values.shape != outputs.shape[:1]:
        got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise GradbenchError(
            f"the loss must return one value per image, shape ({outputs.shape[0]},), but gave {got}"
        )
    if outputs.requires_grad and not values.requires_grad:
        raise GradbenchError("the loss does not depend on the outputs of the network")
    if known or not outputs.requires_grad or len(outputs) == 1:
        return values
    # Weights that are powers of two scale the gradient of each image exactly.
    weights = 2.0 ** (torch.arange(len(outputs), device=outputs.device) % 3)
    # Of half precision a copy is looked at: powers of two are not exact among its smallest numbers.
    seen = outputs if outputs.dtype.itemsize > 2 else outputs.detach().float().requires_grad_()
    checked = values if seen is outputs else loss(images, seen)
    sums = [checked.sum(), (checked * weights.to(checked)).sum()]
    plain, scaled = (
        torch.autograd.grad(s, seen, retain_graph=True, allow_unused=True)[0] for s in sums
    )
    if plain is not None:
        expected = plain * weights.to(plain).view(-1, *(1,) * (plain.ndim - 1))
        if not close(scaled, expected, {torch.float64: 1e-10, torch.float32: 1e-5}):
            raise GradbenchError(
                "the loss mixes the images of a batch: its value for one image must depend on the "
                "outputs for that image alone"
            )
    return values


ROUNDING = {torch.float64: 1e-6, torch.float32: 1e-3}


def close(a: Tensor, b: Tensor, tolerances: dict[torch.dtype, float] = ROUNDING) -> bool:
    """Whether a and b agree within the tolerance of their precision, relative to the largest.

    The default allows for the rounding that another batch size brings.
    """
    tolerance = tolerances.get(b.dtype, 1e-1)
    if tolerances is ROUNDING and b.dtype == torch.float32 and b.device.type != "cpu":
        tolerance = 1e-2  # TensorFloat-32
    if torch.is_autocast_enabled(b.device.type):
        tolerance = 1e-1
    return bool((a - b).abs().max() <= tolerance * b.abs().max())


@contextmanager
def only_these_require_grad(model: nn.Module, parameters: Collection[Tensor]) -> Iterator[None]:
    """Let exactly these parameters of the model require a gradient; afterwards all is as before."""
    before = [(p, p.requires_grad) for p in model.parameters()]
    wanted = frozenset(parameters)
    try:
        for p, _ in before:
            p.requires_grad_(p in wanted and p.is_floating_point())
        yield
    finally:
        for p, required in before:
            p.requires_grad_(required)


@contextmanager
def without_callers_hooks(model: nn.Module) -> Iterator[None]:
    """Suspend the hooks that were placed on the model; those of PyTorch itself are part of it."""
    with ExitStack() as stack:
        for module in model.modules():
            for name in HOOKS:
                hooks = getattr(module, name)
                if hooks:
                    kept = OrderedDict((k, h) for k, h in hooks.items() if _of_torch(h))
                    setattr(module, name, kept)
                    stack.callback(setattr, module, name, hooks)
        yield


def _of_torch(hook: Callable) -> bool:
    return (getattr(hook, "__module__", None) or type(hook).__module__).startswith("torch.")
