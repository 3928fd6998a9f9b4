"""Reads what a caller asks for: parameters, routes, number format; and runs it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gradbench.errors import GradbenchError, unknown
from gradbench.gradients import guard
from gradbench.gradients import precision as formats
from gradbench.gradients.door import check_images, check_loss, network_inside
from gradbench.gradients.engine import Engine
from gradbench.gradients.labels import Label
from gradbench.gradients.losses import PerImage, as_loss, of_both
from gradbench.gradients.memory import default_chunk, in_chunks
from gradbench.gradients.state import only_these_require_grad, same_buffers
from gradbench.gradients.task import ALONE, Found, Taken, Task

ROUTES = ("outer", "direct", "gram", "native", ALONE)
Choice = Iterable[str] | Callable[[str], bool] | None


@dataclass(frozen=True)
class Options:
    """Choices that all statistics share; see `squared_norms`."""

    label: str | Label = "ones"
    loss: str | PerImage = "bce"
    reduction: str | None = None
    parameters: Choice = None
    chunk: int | None = None
    precision: str | None = None
    channels_last: bool | None = None
    routes: str | Mapping[str, str] | None = None
    compiled: bool = False


@dataclass(frozen=True)
class Answer:
    """Statistics of all images: names, statistics, how each was computed, memory halvings."""

    names: list[str]
    found: Found
    taken: dict[str, Taken]
    halvings: int
    chunk: int


def run(
    model: nn.Module,
    images: Tensor,
    options: Options,
    directions: Mapping[str, Tensor] | None = None,
) -> Answer:
    """Check the options and compute the statistics of all images, chunk by chunk.

    Args:
        model: the network.
        images: images first.
        options: what is asked for.
        directions: name -> direction of that parameter's shape, for inner products.

    Raises:
        GradbenchError: see `squared_norms`.
    """
    check_loss(options.loss)
    loss = of_both(as_loss(options.loss, options.label, options.reduction))
    ready = prepare(model, images, options)
    model, images, device = ready.model, ready.images, ready.device
    named = select(model, options.parameters)
    parameters = list(named.values())
    for name, parameter in named.items():
        if parameter.is_complex():
            raise GradbenchError(f"parameter {name} is complex: choose others with parameters=")
    task = Task(
        model,
        loss,
        isinstance(options.loss, str),
        parameters,
        {named[n]: v.detach().to(device) for n, v in (directions or {}).items()},
        _forced(named, options.routes),
        formats.FLOAT16_SCALE if options.precision == "float16" else 1.0,
        ready.channels_last,
        options.compiled,
    )
    engine = Engine(task, device)
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        only_these_require_grad(model, parameters),
        same_buffers(model),
        formats.arithmetic(options.precision, device),
    ):
        parts, halvings = in_chunks(engine, images, ready.chunk)
    if not all(part.norms.isfinite().all() for part in parts):
        raise GradbenchError(
            "the squared gradient norms are not all finite: the loss or the weights are too large "
            f"for precision {options.precision or parameters[0].dtype}"
        )
    norms, outputs = (
        torch.cat([getattr(part, name) for part in parts]).to(images.device)
        for name in ("norms", "outputs")
    )
    products = (
        torch.cat([part.products for part in parts]).to(images.device) if directions else None
    )
    taken = {name: engine.taken[p] for name, p in named.items()}
    return Answer(list(named), Found(norms, products, outputs), taken, halvings, ready.chunk)


@dataclass(frozen=True)
class Ready:
    """Model and images in the number format asked for, and how they are passed through."""

    model: nn.Module
    images: Tensor
    device: torch.device
    chunk: int
    channels_last: bool


def prepare(model: nn.Module, images: Tensor, options: Options) -> Ready:
    """Check images, chunk, precision and mode, and choose what was left open.

    Raises:
        GradbenchError: see `squared_norms`.
    """
    formats.check(options.precision)
    model, images = network_inside(model), check_images(images, options.chunk)
    guard.refuse_training_mode(model)
    model = formats.network_for(model, options.precision)
    first = next((p for p in model.parameters() if p.is_floating_point()), images)
    device, dtype = first.device, first.dtype
    if options.precision is not None and images.is_floating_point():
        images = images.to(dtype)
    if options.precision == "tf32" and device.type != "cuda":
        raise GradbenchError("precision tf32 is one of NVIDIA's GPUs: choose float32")
    layout = options.channels_last
    if layout is None:
        layout = formats.prefers_channels_last(device, options.precision, dtype)
    chunk = options.chunk or default_chunk(images.shape, device)
    return Ready(model, images, device, chunk, layout and images.ndim == 4)


def select(model: nn.Module, wanted: Choice) -> dict[str, nn.Parameter]:
    """Return name -> parameter of the wanted parameters, in the model's order.

    Raises:
        GradbenchError: for a name that the model does not have, or when nothing is left.
    """
    named = dict(model.named_parameters())
    if wanted is None:
        keep = set(named)
    elif callable(wanted) and not isinstance(wanted, nn.Module):
        keep = {name for name in named if wanted(name)}
    elif isinstance(wanted, str):
        keep = {wanted}
    else:
        listed = [wanted] if not isinstance(wanted, Iterable) else list(wanted)
        if isinstance(wanted, Tensor | nn.Module) or not all(isinstance(n, str) for n in listed):
            kind = type(wanted).__name__
            raise GradbenchError(
                f"parameters is a {kind} of something else than names: give names such as "
                f"'{next(iter(named), 'fc.weight')}', or a function that says of a name whether it "
                "is wanted"
            )
        keep = set(listed)
    for name in sorted(keep - set(named)):
        raise unknown("parameter", name, named)
    if not named:
        raise GradbenchError("the network has no parameters, so there is no gradient to measure")
    if not keep:
        raise GradbenchError("no parameter was selected")
    return {name: p for name, p in named.items() if name in keep}


def _forced(
    named: Mapping[str, Tensor], routes: str | Mapping[str, str] | None
) -> dict[Tensor, str]:
    """Return parameter -> route; one route for all is taken wherever a layer has it."""
    if routes is None:
        return {}
    if not isinstance(routes, str | Mapping):
        raise GradbenchError(
            f"routes is a {type(routes).__name__}: give one of {', '.join(ROUTES)}, or a "
            "dictionary from names of parameters to them"
        )
    chosen = dict.fromkeys(named, routes) if isinstance(routes, str) else dict(routes)
    for name, route in chosen.items():
        if name not in named:
            raise unknown("parameter", name, named)
        if not isinstance(route, str) or route not in ROUTES:
            raise unknown("route", route, ROUTES)
    return {named[name]: route for name, route in chosen.items()}
