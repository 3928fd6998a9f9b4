"""A function mode that notes every call whose weight or bias is one of the asked parameters.

It sees functions, not modules: functional code and layers called twice are noted like any other.
What it does not see (compiled or scripted code, functions without a rule) costs nothing but time:
`graph.py` finds out which parameters the notes account for completely.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from gradbench.errors import GradbenchError
from gradbench.gradients import rules
from gradbench.gradients.convolution import Conv2d, conv2d_weight_norm

Rule = Callable[[Tensor, Tensor], Tensor]


@dataclass(eq=False)
class Call:
    """One call of a layer function: its input and a rule for each of its parameters.

    Args:
        kind: name of the layer.
        x: input, images first.
        rules: parameter -> function of (x, delta) to the squared norm per image.
        route: the route of the weight's rule for this shape of delta.
    """

    kind: str
    x: Tensor | None
    rules: dict[Tensor, Rule]
    route: Callable[[Sequence[int]], str] | None = None
    node: Any = field(default=None, init=False)
    edge: Any = field(default=None, init=False)
    handle: Any = field(default=None, init=False)
    version: int = field(default=0, init=False)

    def watch(self, y: Tensor, on_delta: Callable[[Call, Tensor], None]) -> None:
        """Have `on_delta` called with the gradient of y as it is now, before in-place changes."""
        self.version = self.x._version
        self.node, self.edge = y.grad_fn, torch.autograd.graph.get_gradient_edge(y)
        self.handle = y.register_hook(partial(on_delta, self))

    def release(self) -> None:
        """Drop the input and the hook; hook and graph would otherwise keep each other alive."""
        if self.handle is not None:
            self.handle.remove()
        self.x = self.node = self.edge = self.handle = None
        self.rules = {}


def _bias_rule(rule: Callable[[Tensor], Tensor]) -> Rule:
    return lambda x, delta: rule(delta)


def _call(kind: str, x: Tensor, weight: Any, on_weight: Rule, bias: Any, on_bias: Rule) -> Call:
    pairs = ((weight, on_weight), (bias, _bias_rule(on_bias)))
    return Call(kind, x.detach(), {p: rule for p, rule in pairs if p is not None})


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Call | None:
    if input.ndim < 2:
        return None
    return _call("linear", input, weight, rules.linear_weight_norm, bias, rules.linear_bias_norm)


def _conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Call | None:
    if input.ndim != 4:  # a single image without a batch dimension
        return None
    conv = Conv2d.of_call(weight, stride, padding, dilation, groups)
    on_weight = partial(conv2d_weight_norm, conv=conv)
    call = _call("conv2d", input, weight, on_weight, bias, rules.channel_bias_norm)
    call.route = partial(conv.route, input.shape)
    return call


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Call:
    if training or running_mean is None or running_var is None:
        raise GradbenchError(
            "a batch normalisation uses the statistics of the batch, so no image has a gradient of "
            "its own: call model.eval() and give the layer running statistics"
        )
    on_weight = partial(
        rules.batch_norm_weight_norm, mean=running_mean, variance=running_var, eps=eps
    )
    return _call("batch_norm", input, weight, on_weight, bias, rules.channel_bias_norm)


def _group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Call:
    on_weight = partial(rules.group_norm_weight_norm, groups=num_groups, eps=eps)
    return _call("group_norm", input, weight, on_weight, bias, rules.channel_bias_norm)


def _layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Call | None:
    shape = tuple(normalized_shape)
    if input.ndim <= len(shape):
        return None
    on_weight = partial(rules.layer_norm_weight_norm, shape=shape, eps=eps)
    on_bias = partial(rules.layer_norm_bias_norm, shape=shape)
    return _call("layer_norm", input, weight, on_weight, bias, on_bias)


# Each reader has the signature of the function that it reads the arguments of.
READERS: dict[Callable, Callable[..., Call | None]] = {
    F.linear: _linear,
    torch.conv2d: _conv2d,
    F.batch_norm: _batch_norm,
    F.group_norm: _group_norm,
    F.layer_norm: _layer_norm,
}


class Recorder(TorchFunctionMode):
    """Notes the calls that a set of parameters enters; use around a forward pass.

    Args:
        parameters: the parameters that are asked for.
        on_delta: called in the backward pass with each call and the gradient of its output.
    """

    def __init__(
        self, parameters: Sequence[Tensor], on_delta: Callable[[Call, Tensor], None] | None = None
    ):
        super().__init__()
        self.parameters = frozenset(parameters)
        self.on_delta = on_delta
        self.calls: list[Call] = []

    def __torch_function__(
        self,
        func: Callable,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run the function and note it when it is a layer with an asked parameter."""
        kwargs = kwargs or {}
        reader = READERS.get(func)
        call = reader(*args, **kwargs) if reader else None
        result = func(*args, **kwargs)
        if call is not None and result.requires_grad:
            call.rules = {p: r for p, r in call.rules.items() if p in self.parameters}
            if call.rules:
                self.calls.append(call)
                if self.on_delta is not None:
                    call.watch(result, self.on_delta)
        return result

    def release(self) -> None:
        """Let go of every call."""
        for call in self.calls:
            call.release()
        self.calls.clear()
