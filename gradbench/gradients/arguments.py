"""From the arguments of a caller to a task: what can be taken at all, and what was left open."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.loss import _Loss
from torch.nn.parameter import is_lazy

from gradbench.errors import GradbenchError, unknown
from gradbench.gradients.losses import Label, PairLoss, PerImage, as_loss, of_images_and_outputs
from gradbench.gradients.memory import default_chunk, out_of_memory
from gradbench.gradients.precision import (
    FLOAT16_SCALE,
    check_precision,
    network_for,
    prefers_channels_last,
)
from gradbench.gradients.refusals import refuse_training_mode, short_name
from gradbench.gradients.state import tensors_of
from gradbench.gradients.task import ALONE, Task

ROUTES = ("outer", "direct", "gram", "native", ALONE)
Choice = Iterable[str] | Callable[[str], bool] | None


def make_task(
    model: nn.Module,
    images: Tensor,
    directions: Mapping[str, Tensor] | None = None,
    *,
    label: str | Label = "ones",
    loss: str | PerImage | PairLoss = "bce",
    reduction: str | None = None,
    parameters: Choice = None,
    chunk: int | None = None,
    precision: str | None = None,
    channels_last: bool | None = None,
    routes: str | None = None,
) -> Task:
    """Return the task for the arguments of `squared_norms` or `alignments`, checked."""
    check_loss(loss)
    if routes is not None and routes not in ROUTES:
        raise unknown("route", routes, ROUTES)
    per_image = of_images_and_outputs(as_loss(loss, label, reduction))
    task = outputs_task(model, images, chunk, precision, channels_last)
    named = select_parameters(task.model, parameters)
    for name, parameter in named.items():
        if parameter.is_complex():
            raise GradbenchError(f"parameter {name} is complex: choose others with parameters=")
    return replace(
        task,
        loss=per_image,
        known_loss=isinstance(loss, str),
        parameters=named,
        directions={
            named[n]: (v if _stacked(named[n], v) else v[None]).detach().to(task.device)
            for n, v in (directions or {}).items()
        },
        route=routes,
        scale=FLOAT16_SCALE if precision == "float16" else 1.0,
    )


def check_options(options: Mapping[str, Any], without: str = "") -> None:
    """Raise a GradbenchError for an option that `squared_norms` does not have."""
    parameters = inspect.signature(make_task).parameters.values()
    known = [p.name for p in parameters if p.kind == p.KEYWORD_ONLY and p.name != without]
    for name in options:
        if name not in known:
            raise unknown("option", name, known)


def outputs_task(
    model: nn.Module,
    images: Tensor,
    chunk: int | None = None,
    precision: str | None = None,
    channels_last: bool | None = None,
) -> Task:
    """Return the task of the network's outputs alone: images, chunk, precision, mode, layout."""
    check_precision(precision)
    model, images = network_inside(model), check_images(images, chunk)
    refuse_training_mode(model)
    model = network_for(model, precision)
    first = next((p for p in model.parameters() if p.is_floating_point()), images)
    device, dtype = first.device, first.dtype
    if precision is not None and images.is_floating_point():
        images = images.to(dtype)
    if precision == "tf32" and device.type != "cuda":
        raise GradbenchError("precision tf32 is one of NVIDIA's GPUs: choose float32")
    if channels_last is None:
        channels_last = prefers_channels_last(device, precision, dtype)
    # By shapes and device alone, not by free memory: equal calls give equal bytes.
    chunk = chunk or default_chunk(images.shape, device)
    return Task(model, images, device, chunk, precision, channels_last and images.ndim == 4)


def select_parameters(model: nn.Module, wanted: Choice) -> dict[str, nn.Parameter]:
    """Return name -> parameter of the wanted parameters, at least one, in the model's order."""
    named = dict(model.named_parameters())
    if not named:
        raise GradbenchError("the network has no parameters, so there is no gradient to measure")
    if wanted is None:
        return named
    if isinstance(wanted, Iterable) and not isinstance(wanted, str | Tensor | nn.Module):
        keep = list(wanted)
    elif isinstance(wanted, nn.Module) or not callable(wanted):
        keep = [wanted]
    else:
        keep = [name for name in named if wanted(name)]
    if not all(isinstance(name, str) for name in keep):
        raise GradbenchError(
            f"parameters is a {type(wanted).__name__} of something else than names: give names "
            f"such as '{next(iter(named))}', or a function that says of a name whether it is wanted"
        )
    for name in keep:
        if name not in named:
            raise unknown("parameter", name, named)
    if not keep:
        raise GradbenchError("no parameter was selected")
    return {name: p for name, p in named.items() if name in keep}


def network_inside(model: Any) -> nn.Module:
    """Return the network that `torch.compile` or a data-parallel wrapper was given.

    Layers inside compiled code cannot be seen, nor those that run on other devices. Names of
    parameters are those of the network inside; all must have values that can have a gradient.
    """
    if not isinstance(model, nn.Module):
        kind = "class" if isinstance(model, type) else type(model).__name__
        raise GradbenchError(f"the model is a {kind}, not a torch.nn.Module")
    parallel = nn.DataParallel | nn.parallel.DistributedDataParallel
    while hasattr(model, "_orig_mod") or isinstance(model, parallel):
        model = model.module if isinstance(model, parallel) else model._orig_mod
    if not all(map(_ordinary, tensors_of(model))):  # names take several times as long
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            _check_tensor(f"the network's tensor {name}", tensor)
    return model


def check_images(images: Any, chunk: Any = None) -> Tensor:
    """Return the images, of which there must be some, as an ordinary tensor without a graph."""
    if not isinstance(images, Tensor):
        hint = ": torch.as_tensor makes one of an array" if hasattr(images, "__array__") else ""
        raise GradbenchError(f"the images are a {type(images).__name__}, not a torch.Tensor{hint}")
    _check_tensor("the tensor of images", images)
    if images.ndim < 1 or images.numel() == 0:
        raise GradbenchError(f"no images were given: the shape is {tuple(images.shape)}")
    if chunk is not None and (not isinstance(chunk, int) or isinstance(chunk, bool) or chunk < 1):
        raise GradbenchError(f"chunk {chunk}: a whole number of at least 1")
    return images.detach().as_subclass(Tensor)


def check_directions(directions: Any, model: nn.Module) -> None:
    """Raise a GradbenchError unless these are parameters' names -> real, finite tensors to fit.

    They are one direction of every parameter, or a stack of equally many.
    """
    if not isinstance(directions, Mapping) or not directions:
        raise GradbenchError(
            f"directions is {'empty' if directions == {} else f'a {type(directions).__name__}'}: "
            "give a dictionary from names of parameters to tensors of their shapes"
        )
    named = dict(model.named_parameters())
    for name, direction in directions.items():
        if name not in named:
            raise unknown("parameter", name, named)
        if not isinstance(direction, Tensor):
            raise GradbenchError(
                f"the direction of {name} is a {type(direction).__name__}, not a torch.Tensor"
            )
        _check_tensor(f"the direction of {name}", direction)
        shape = named[name].shape
        if direction.shape != shape and (direction.shape[1:] != shape or not len(direction)):
            raise GradbenchError(
                f"the direction of {name} has shape {tuple(direction.shape)}, but the parameter "
                f"has {tuple(shape)}: give one of that shape, or a stack of some, (K, *shape)"
            )
        if direction.is_complex() or not _finite(direction):
            raise GradbenchError(f"the direction of {name} is not real and finite")
    counts = {name: _stacked(named[name], v) for name, v in directions.items()}
    if len(set(counts.values())) > 1:
        raise GradbenchError(
            f"the directions are of different numbers ({counts}): give one of every parameter, or "
            "stacks of equally many"
        )


def _finite(values: Tensor) -> bool:
    # by the two ends: to look at every number takes a tenth of a pass with ten directions
    return not values.numel() or all(bool(end.isfinite()) for end in torch.aminmax(values))


def _stacked(parameter: Tensor, direction: Tensor) -> int | None:
    """Return how many directions a stack holds, None for a single one."""
    return len(direction) if direction.ndim > parameter.ndim else None


def check_loss(loss: Any) -> None:
    """Raise a GradbenchError for a loss of PyTorch's own, which wants a target."""
    kind = loss if isinstance(loss, type) else type(loss)
    if issubclass(kind, _Loss) or getattr(loss, "__module__", None) == F.__name__:
        name = getattr(loss, "__name__", kind.__name__)
        raise GradbenchError(
            f"loss {name} compares with a target: pass a function of the network's outputs alone"
        )


FAULTS = (RuntimeError, TypeError, ValueError, IndexError, AssertionError)
"""Exceptions of PyTorch for images of a wrong shape, number format or device."""


@contextmanager
def naming_rejected_images(model: nn.Module, images: Tensor) -> Iterator[None]:
    """Turn a fault in a network's first pass of an image into a sentence that names the images."""
    try:
        yield
    except FAULTS as fault:
        if out_of_memory(fault):
            raise
        reason = (str(fault).strip() or type(fault).__name__).splitlines()[0][:200].rstrip(".")
        text = (
            f"the network does not take these images, {short_name(images.dtype)} of shape "
            f"{tuple(images.shape[1:])}: {reason}"
        )
        formats = {p.dtype for p in model.parameters() if p.is_floating_point()}
        if formats and images.dtype not in formats:
            wanted = short_name(next(iter(formats)))
            text += f"; its parameters are {wanted}: pass images.to(torch.{wanted})"
        raise GradbenchError(text) from fault


def _ordinary(tensor: Tensor) -> bool:
    """Whether a tensor is dense, and has values that can have a gradient."""
    special = is_lazy(tensor) or tensor.is_meta or tensor.is_quantized or tensor.is_nested
    return not special and tensor.layout == torch.strided


def _check_tensor(name: str, tensor: Tensor) -> None:
    if not _ordinary(tensor):
        kind = "lazy" if is_lazy(tensor) else f"{short_name(tensor.layout)}, {tensor.device}"
        raise GradbenchError(
            f"{name} ({kind}) is no ordinary tensor with values: lazy ones get them in a first "
            "pass; the meta device holds none; sparse, nested and quantised ones must be made dense"
        )
