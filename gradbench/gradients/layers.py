"""The layer functions that have a rule: which rule, which input, which weight and bias.

Each entry of `LAYERS` has the signature of the function that it reads, and returns None where no
rule applies: then the exact fallback is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from gradbench.gradients.rules.base import Rule
from gradbench.gradients.rules.broadcast import Slope
from gradbench.gradients.rules.convolution import Convolution, Geometry
from gradbench.gradients.rules.linear import Embedding, Linear
from gradbench.gradients.rules.normalisation import BatchNorm, GroupNorm, LayerNorm


class Layer(NamedTuple):
    """The rule of a layer, its input, and the tensors in the roles of weight and bias, if any."""

    rule: Rule
    x: Tensor
    weight: Any = None
    bias: Any = None


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Layer | None:
    return Layer(Linear(), input, weight, bias) if input.ndim > 1 else None


def _matmul(input: Tensor, other: Any, *, out: Any = None) -> Layer | None:
    if out is not None or input.ndim < 2 or getattr(other, "ndim", 0) != 2:
        return None
    return Layer(Linear(transposed=True), input, other)


_CONVOLUTION = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}
_TRANSPOSED = {"stride": 1, "padding": 0, "output_padding": 0, "groups": 1, "dilation": 1}


def _convolution(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *positional: Any,
    function: Callable,
    defaults: dict[str, Any],
    **named: Any,
) -> Layer | None:
    dimensions = weight.ndim - 2
    if input.ndim != weight.ndim:  # a single image without a batch dimension
        return None
    given = defaults | dict(zip(defaults, positional)) | named
    kernel, dilation = tuple(weight.shape[2:]), _each(given["dilation"], dimensions)
    padding = given["padding"]
    if padding == "same":  # the odd zero goes to the end, as in PyTorch
        total = [d * (k - 1) for d, k in zip(dilation, kernel)]
        sides = tuple((t // 2, t - t // 2) for t in total)
    else:
        sides = tuple((n, n) for n in _each(0 if padding == "valid" else padding, dimensions))
    geometry = Geometry(
        kernel, _each(given["stride"], dimensions), sides, dilation, given["groups"]
    )
    rule = Convolution(
        geometry, lambda x, w: function(x, w, None, **given), transposed=defaults is _TRANSPOSED
    )
    return Layer(rule, input, weight, bias)


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Layer | None:
    if training or running_mean is None or running_var is None:
        return None  # of weights, or refused: see batch_statistics.py
    return Layer(BatchNorm(running_mean, running_var, eps), input, weight, bias)


def _instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Layer:
    own = use_input_stats or running_mean is None
    rule = GroupNorm(None, eps) if own else BatchNorm(running_mean, running_var, eps)
    return Layer(rule, input, weight, bias)


def _group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Layer:
    return Layer(GroupNorm(num_groups, eps), input, weight, bias)


def _layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float | None = 1e-5,
    centred: bool = True,
) -> Layer | None:
    shape = tuple(normalized_shape)
    if input.ndim <= len(shape):  # a single image without a batch dimension
        return None
    return Layer(LayerNorm(shape, eps, centred), input, weight, bias)


def _rms_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Layer | None:
    return _layer_norm(input, normalized_shape, weight, None, eps, centred=False)


def _embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Layer | None:
    # These change the table, or a gradient by its neighbours; `sparse` says how one would be kept.
    if max_norm is not None or scale_grad_by_freq:
        return None
    if padding_idx is not None and padding_idx < 0:
        padding_idx += len(weight)
    return Layer(Embedding(padding_idx), input, weight)


def _prelu(input: Tensor, weight: Tensor) -> Layer | None:
    return Layer(Slope(weight.numel()), input, weight) if input.ndim > 1 else None


def _each(value: int | Sequence[int], dimensions: int) -> tuple[int, ...]:
    if isinstance(value, int):
        return (value,) * dimensions
    return tuple(value) * (dimensions // len(value))


LAYERS: dict[Callable, Callable[..., Layer | None]] = {
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
    function: partial(_convolution, function=function, defaults=defaults)
    for defaults, functions in (
        (_CONVOLUTION, (torch.conv1d, torch.conv2d, torch.conv3d)),
        (_TRANSPOSED, (torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d)),
    )
    for function in functions
}
