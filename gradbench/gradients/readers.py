"""Reads the arguments of layer functions: which rule applies, to which input and parameters.

Each reader has the signature of the function that it reads; it answers None where no rule applies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from gradbench.gradients.rules.base import Rule
from gradbench.gradients.rules.broadcast import Slope
from gradbench.gradients.rules.convolution import Convolution, Geometry
from gradbench.gradients.rules.linear import Embedding, Linear
from gradbench.gradients.rules.normalisation import BatchNorm, GroupNorm, LayerNorm


@dataclass(frozen=True)
class Reading:
    """What a reader found.

    Args:
        rule: for the layer.
        x: its input.
        weight: tensor in the role of the weight, or None.
        bias: tensor in the role of the bias, or None.
        flipped: whether the function reads the weight transposed.
    """

    rule: Rule
    x: Tensor
    weight: Any = None
    bias: Any = None
    flipped: bool = False


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Reading | None:
    return Reading(Linear(), input, weight, bias) if input.ndim > 1 else None


def _matmul(input: Tensor, other: Any, *, out: Any = None) -> Reading | None:
    if out is not None or input.ndim < 2 or getattr(other, "ndim", 0) != 2:
        return None
    return Reading(Linear(), input, other, flipped=True)


def _convolution(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    *,
    function: Callable,
) -> Reading | None:
    dimensions = weight.ndim - 2
    if input.ndim != weight.ndim:  # a single image without a batch dimension
        return None
    kernel, dilations = tuple(weight.shape[2:]), _each(dilation, dimensions)
    if padding == "same":  # the odd zero goes to the end, as in PyTorch
        total = [d * (k - 1) for d, k in zip(dilations, kernel)]
        sides = tuple((t // 2, t - t // 2) for t in total)
    elif padding == "valid":
        sides = ((0, 0),) * dimensions
    else:
        sides = tuple((n, n) for n in _each(padding, dimensions))
    geometry = Geometry(kernel, _each(stride, dimensions), sides, dilations, groups)
    apply = partial(
        _apply, function, stride=stride, padding=padding, dilation=dilation, groups=groups
    )
    return Reading(Convolution(geometry, apply), input, weight, bias)


def _transposed(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
    *,
    function: Callable,
) -> Reading | None:
    dimensions = weight.ndim - 2
    if input.ndim != weight.ndim:
        return None
    geometry = Geometry(
        tuple(weight.shape[2:]),
        _each(stride, dimensions),
        tuple((n, n) for n in _each(padding, dimensions)),
        _each(dilation, dimensions),
        groups,
    )
    apply = partial(
        *(_apply, function),
        stride=stride,
        padding=padding,
        output_padding=output_padding,
        groups=groups,
        dilation=dilation,
    )
    return Reading(Convolution(geometry, apply, transposed=True), input, weight, bias)


def _apply(function: Callable, x: Tensor, weight: Tensor, **settings: Any) -> Tensor:
    return function(x, weight, None, **settings)


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Reading | None:
    if training or running_mean is None or running_var is None:
        return None  # of weights, or refused: see statistics.py
    return Reading(BatchNorm(running_mean, running_var, eps), input, weight, bias)


def _instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Reading:
    own = use_input_stats or running_mean is None
    rule = GroupNorm(None, eps) if own else BatchNorm(running_mean, running_var, eps)
    return Reading(rule, input, weight, bias)


def _group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Reading:
    return Reading(GroupNorm(num_groups, eps), input, weight, bias)


def _layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Reading | None:
    shape = tuple(normalized_shape)
    if input.ndim <= len(shape):
        return None
    return Reading(LayerNorm(shape, eps), input, weight, bias)


def _rms_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Reading | None:
    shape = tuple(normalized_shape)
    if input.ndim <= len(shape):
        return None
    return Reading(LayerNorm(shape, eps, centred=False), input, weight)


def _embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Reading | None:
    if max_norm is not None or scale_grad_by_freq:  # `sparse` says how a gradient would be kept
        return None
    if padding_idx is not None and padding_idx < 0:
        padding_idx += len(weight)
    return Reading(Embedding(padding_idx), input, weight)


def _prelu(input: Tensor, weight: Tensor) -> Reading | None:
    if input.ndim < 2:
        return None
    return Reading(Slope(weight.numel()), input, weight)


def _each(value: int | Sequence[int], dimensions: int) -> tuple[int, ...]:
    if isinstance(value, int):
        return (value,) * dimensions
    return tuple(value) * (dimensions // len(value))


READERS: dict[Callable, Callable[..., Reading | None]] = {
    F.linear: _linear,
    torch.matmul: _matmul,
    torch.Tensor.matmul: _matmul,
    F.batch_norm: _batch_norm,
    F.instance_norm: _instance_norm,
    F.group_norm: _group_norm,
    F.layer_norm: _layer_norm,
    F.rms_norm: _rms_norm,
    F.embedding: _embedding,
    torch.prelu: _prelu,
} | {
    function: partial(reader, function=function)
    for reader, functions in (
        (_convolution, (torch.conv1d, torch.conv2d, torch.conv3d)),
        (
            _transposed,
            (torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d),
        ),
    )
    for function in functions
}
