"""The layer functions that have a rule: their arguments, and the rule that these call for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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

Arguments = Mapping[str, Any]


class Layer(NamedTuple):
    """The rule of a layer, its input, and the tensors in the roles of weight and bias, if any."""

    rule: Rule
    x: Tensor
    weight: Any = None
    bias: Any = None


def read_layer(function: Callable, args: Sequence[Any], kwargs: Arguments) -> Layer | None:
    """Return the layer that a call of a function computes; None where no rule applies."""
    if function not in LAYERS:
        return None
    names, rule_for = LAYERS[function]
    arguments = dict(zip(names.split(), args)) | kwargs
    # A single image without a batch dimension has no rule: its rows would be taken for images.
    single = arguments["input"].ndim < 2 and function is not F.embedding
    rule = None if single else rule_for(arguments)
    weight = arguments.get("weight", arguments.get("other"))
    return None if rule is None else Layer(rule, arguments["input"], weight, arguments.get("bias"))


def _matmul(arguments: Arguments) -> Rule | None:
    matrix = getattr(arguments.get("other"), "ndim", 0) == 2
    return Linear(transposed=True) if matrix and arguments.get("out") is None else None


def _convolution(function: Callable, transposed: bool, arguments: Arguments) -> Rule | None:
    weight = arguments["weight"]
    dimensions = weight.ndim - 2
    if arguments["input"].ndim != weight.ndim:
        return None
    settings = {k: v for k, v in arguments.items() if k not in ("input", "weight", "bias")}
    kernel, padding = tuple(weight.shape[2:]), settings.get("padding", 0)
    stride, dilation = (_each(settings.get(k, 1), dimensions) for k in ("stride", "dilation"))
    if padding == "same":  # the odd zero goes to the end, as in PyTorch
        total = [d * (k - 1) for d, k in zip(dilation, kernel)]
        sides = tuple((t // 2, t - t // 2) for t in total)
    else:
        sides = tuple((n, n) for n in _each(0 if padding == "valid" else padding, dimensions))
    geometry = Geometry(kernel, stride, sides, dilation, settings.get("groups", 1))
    return Convolution(geometry, lambda x, w: function(x, w, None, **settings), transposed)


def _batch_norm(arguments: Arguments) -> Rule | None:
    mean, variance = arguments.get("running_mean"), arguments.get("running_var")
    if arguments.get("training") or mean is None or variance is None:
        return None  # of weights: others are refused by the recorder
    return BatchNorm(mean, variance, arguments.get("eps", 1e-5))


def _instance_norm(arguments: Arguments) -> Rule:
    mean, eps = arguments.get("running_mean"), arguments.get("eps", 1e-5)
    if arguments.get("use_input_stats", True) or mean is None:
        return GroupNorm(None, eps)
    return BatchNorm(mean, arguments["running_var"], eps)


def _group_norm(arguments: Arguments) -> Rule:
    return GroupNorm(arguments["num_groups"], arguments.get("eps", 1e-5))


def _layer_norm(arguments: Arguments, centred: bool = True) -> Rule | None:
    shape = tuple(arguments["normalized_shape"])
    if arguments["input"].ndim <= len(shape):
        return None
    return LayerNorm(shape, arguments.get("eps", 1e-5 if centred else None), centred)


def _embedding(arguments: Arguments) -> Rule | None:
    # These change the table, or a gradient by its neighbours; `sparse` says how one would be kept.
    if arguments.get("max_norm") is not None or arguments.get("scale_grad_by_freq"):
        return None
    padding = arguments.get("padding_idx")
    return Embedding(None if padding is None else padding % len(arguments["weight"]))


def _each(value: int | Sequence[int], dimensions: int) -> tuple[int, ...]:
    if isinstance(value, int):
        return (value,) * dimensions
    return tuple(value) * (dimensions // len(value))


_CONVOLUTION = "input weight bias stride padding dilation groups"
_TRANSPOSED = "input weight bias stride padding output_padding groups dilation"
_BATCH = "input running_mean running_var weight bias training momentum eps"
_INSTANCE = "input running_mean running_var weight bias use_input_stats momentum eps"
_TABLE = "input weight padding_idx max_norm norm_type scale_grad_by_freq sparse"

LAYERS: dict[Callable, tuple[str, Callable[[Arguments], Rule | None]]] = {
    F.linear: ("input weight bias", lambda arguments: Linear()),
    torch.matmul: ("input other", _matmul),
    Tensor.matmul: ("input other", _matmul),
    F.batch_norm: (_BATCH, _batch_norm),
    F.instance_norm: (_INSTANCE, _instance_norm),
    F.group_norm: ("input num_groups weight bias eps", _group_norm),
    F.layer_norm: ("input normalized_shape weight bias eps", _layer_norm),
    F.rms_norm: ("input normalized_shape weight eps", partial(_layer_norm, centred=False)),
    F.embedding: (_TABLE, _embedding),
    torch.prelu: ("input weight", lambda arguments: Slope(arguments["weight"].numel())),
} | {
    function: (names, partial(_convolution, function, names is _TRANSPOSED))
    for names, functions in (
        (_CONVOLUTION, (torch.conv1d, torch.conv2d, torch.conv3d)),
        (_TRANSPOSED, (torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d)),
    )
    for function in functions
}
"""Function -> names of its arguments in order, and its rule for them, None where none applies."""
