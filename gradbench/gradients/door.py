"""What callers may pass: a network, images and directions that the engine can take at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.loss import _Loss
from torch.nn.parameter import is_lazy

from gradbench.errors import GradbenchError
from gradbench.gradients.guard import plain
from gradbench.gradients.memory import out_of_memory
from gradbench.gradients.state import tensors_of


def network_inside(model: Any) -> nn.Module:
    """Return the network in what `torch.compile` or a data-parallel wrapper made of it.

    Layers inside compiled code cannot be seen, nor those that run on other devices. Names of
    parameters are those of the network inside.

    Raises:
        GradbenchError: for anything but a module, or parameters without values that can have a
            gradient.
    """
    if _is_class_of_modules(model):
        raise GradbenchError(f"the model is the class {model.__name__}: make a network of it first")
    if not isinstance(model, nn.Module):
        raise GradbenchError(f"the model is a {type(model).__name__}, not a torch.nn.Module")
    while True:
        if hasattr(model, "_orig_mod"):
            model = model._orig_mod
        elif isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        else:
            break
    if not all(map(_ordinary, tensors_of(model))):
        for name, parameter in model.named_parameters():
            _check_tensor(f"parameter {name}", parameter)
        for name, buffer in model.named_buffers():
            _check_tensor(f"buffer {name}", buffer)
    return model


def check_images(images: Any, chunk: Any = None) -> Tensor:
    """Return the images as an ordinary tensor without a graph.

    Raises:
        GradbenchError: unless these are some images, and chunk a number of images or None.
    """
    if not isinstance(images, Tensor):
        hint = ": torch.as_tensor makes one of an array" if hasattr(images, "__array__") else ""
        raise GradbenchError(f"the images are a {type(images).__name__}, not a torch.Tensor{hint}")
    _check_tensor("the tensor of images", images)
    if images.ndim < 1 or len(images) == 0:
        raise GradbenchError("no images were given")
    if images.ndim > 1 and images[0].numel() == 0:
        raise GradbenchError(f"the images are empty: their shape is {tuple(images.shape)}")
    if chunk is not None and (not isinstance(chunk, int) or isinstance(chunk, bool) or chunk < 1):
        raise GradbenchError(f"chunk {chunk}: a whole number of at least 1")
    return images.detach().as_subclass(Tensor)


def check_direction(name: str, direction: Any, parameter: Tensor) -> None:
    """Raise a GradbenchError unless a direction is real, finite and of its parameter's shape."""
    if not isinstance(direction, Tensor):
        raise GradbenchError(
            f"the direction of {name} is a {type(direction).__name__}, not a torch.Tensor"
        )
    _check_tensor(f"the direction of {name}", direction)
    if direction.is_complex():
        raise GradbenchError(f"the direction of {name} is complex")
    if direction.shape != parameter.shape:
        raise GradbenchError(
            f"the direction of {name} has shape {tuple(direction.shape)}, but the parameter "
            f"has {tuple(parameter.shape)}"
        )
    if not torch.isfinite(direction).all():
        raise GradbenchError(f"the direction of {name} is not finite")


def check_loss(loss: Any) -> None:
    """Raise a GradbenchError for a loss of PyTorch's own, which wants a target."""
    of_torch = getattr(loss, "__module__", None) == F.__name__
    if isinstance(loss, _Loss) or of_torch or _is_class_of_modules(loss):
        name = getattr(loss, "__name__", type(loss).__name__)
        raise GradbenchError(
            f"loss {name} compares with a target: pass a function of the network's outputs alone"
        )


FAULTS = (RuntimeError, TypeError, ValueError, IndexError, AssertionError)
"""What PyTorch raises for images of a wrong shape, number format or device."""


def _is_class_of_modules(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, nn.Module)


@contextmanager
def taking(model: nn.Module, images: Tensor) -> Iterator[None]:
    """Turn what a network's first pass of an image raises into one sentence.

    Raises:
        GradbenchError: naming the images' shape and number format, and the fault.
    """
    try:
        yield
    except FAULTS as fault:
        if isinstance(fault, RuntimeError) and out_of_memory(fault):
            raise
        raise GradbenchError(_refused(model, images, fault)) from fault


def _refused(model: nn.Module, images: Tensor, fault: Exception) -> str:
    words = (str(fault).strip() or type(fault).__name__).splitlines()[0][:200].rstrip(".")
    text = (
        f"the network does not take these images, {plain(images.dtype)} of shape "
        f"{tuple(images.shape[1:])}: {words}"
    )
    formats = {p.dtype for p in model.parameters() if p.is_floating_point()}
    if formats and images.dtype not in formats:
        wanted = plain(next(iter(formats)))
        text += f"; its parameters are {wanted}: pass images.to(torch.{wanted})"
    return text


def _ordinary(tensor: Tensor) -> bool:
    dense = not is_lazy(tensor) and tensor.layout == torch.strided
    return dense and not (tensor.is_meta or tensor.is_quantized or tensor.is_nested)


def _check_tensor(what: str, tensor: Tensor) -> None:
    if _ordinary(tensor):
        return
    if is_lazy(tensor):
        raise GradbenchError(f"{what} has no shape yet: run the network once on some images first")
    if tensor.is_meta:
        raise GradbenchError(f"{what} is on the meta device, which holds no values")
    if tensor.is_quantized:
        raise GradbenchError(f"{what} is quantised, and has no gradient: pass dequantize()d ones")
    layout = "nested" if tensor.is_nested else plain(tensor.layout)
    raise GradbenchError(f"{what} is {layout}, not an ordinary (dense) tensor")
