"""A function mode that records every call in which requested parameters meet the images.

It sees functions, not modules: functional code and layers called twice are recorded like any other.
A recorded call is given a leaf in place of the parameter, or of the expression made of parameters,
so that it is cut off from them: what still reaches a parameter in the graph was not accounted for
(compiled or scripted code, functions without a rule), and costs nothing but time (`graph.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from gradbench.errors import GradbenchError
from gradbench.gradients.expressions import Expression, Expressions, tensors_in
from gradbench.gradients.forward_path import ForwardPath
from gradbench.gradients.layers import Layer, read_layer
from gradbench.gradients.layout import Layout
from gradbench.gradients.reordering import reordered_lengths
from gradbench.gradients.rules.base import Rule
from gradbench.gradients.rules.broadcast import BROADCASTS, COPIES, Broadcast, copied_per_row


@dataclass(eq=False)
class ParameterUse:
    """A parameter, or an expression of some, that enters a call as `role`; `leaf` stands for it."""

    role: str
    expression: Expression
    leaf: Tensor


@dataclass(eq=False)
class Call:
    """One call of a layer function."""

    rule: Rule
    uses: list[ParameterUse]
    x: Tensor | None = None  # its input, if the rule reads it
    layout: Layout | None = None  # where the images lie in input and output; None: not known
    node: Any = field(default=None, init=False)
    edge: Any = field(default=None, init=False)
    handle: Any = field(default=None, init=False)
    version: int = field(default=0, init=False)

    @property
    def parameters(self) -> frozenset[Tensor]:
        """The requested parameters that act through the first use."""
        return self.uses[0].expression.parameters

    def watch(self, y: Tensor, on_delta: Callable[[Call, Tensor], None]) -> None:
        """Have `on_delta` called with the gradient of y as it is now, before in-place changes."""
        self.version = 0 if self.x is None else self.x._version
        self.node, self.edge = y.grad_fn, torch.autograd.graph.get_gradient_edge(y)
        self.handle = y.register_hook(partial(on_delta, self))

    def release(self) -> None:
        """Drop the input and the hook; hook and graph would otherwise keep each other alive."""
        if self.handle is not None:
            self.handle.remove()
        self.x = self.node = self.edge = self.handle = None
        self.uses = []


class Recorder(TorchFunctionMode):
    """Records the calls that the requested parameters enter; use around a forward pass.

    `held` are the tensors of the network. `on_call` gets each call and a tensor of it that shows
    where its images lie, `on_delta` in the backward pass each call and the gradient of its output;
    without it nothing is cut off.
    """

    def __init__(
        self,
        held: Sequence[Tensor],
        parameters: Sequence[Tensor],
        on_call: Callable[[Call, Tensor], None],
        on_delta: Callable[[Call, Tensor], None] | None = None,
    ):
        super().__init__()
        self.held, self.parameters = held, parameters
        self.on_call, self.on_delta = on_call, on_delta
        self.calls: list[Call] = []
        # lengths along which something was picked or reordered, see reordering.py
        self.reorderings: list[tuple[int, ...]] = []
        self.expressions, self.path = Expressions(held, parameters), ForwardPath()

    def __torch_function__(
        self,
        func: Callable,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run the function and record it when requested parameters meet the images in it."""
        kwargs = kwargs or {}
        if func in COMPOSITES:
            with self:  # a mode is off while it handles a function
                return _opened(func)(*args, **kwargs)
        if func in BATCH_NORMS:
            self._refuse_batch_statistics(func, args, kwargs)
        result = self._run(func, args, kwargs)
        self.path.add(func, args, kwargs, result)
        return result

    def _run(self, func: Callable, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        lengths = reordered_lengths(func, args, kwargs)
        if lengths is not None:
            self.reorderings.append(lengths)
        expressions = [self.expressions.find(tensor) for tensor in tensors_in((args, kwargs))]
        free_of_images = None not in expressions
        # Functions that no requested parameter enters just run: most of them, where few are.
        if any(known is not None and known.requested for known in expressions):
            copied = self._run_copy(func, args, kwargs) if func in COPIES else None
            if copied is not None:
                return copied
            layer = read_layer(func, args, kwargs)
            if layer is not None and not (free_of_images and self._constant(layer)):
                return self._run_layer(layer, func, args, kwargs)
            if not free_of_images and func in BROADCASTS:
                return self._run_broadcast(func, args, kwargs)
        # What no rule reads keeps its graph to the parameters, where graph.py finds it.
        if free_of_images:
            return self.expressions.follow(func, args, kwargs)
        return func(*args, **kwargs)

    def _refuse_batch_statistics(self, func: Callable, args: Sequence, kwargs: Mapping) -> None:
        names = dict(zip(BATCH_NORMS[func].split(), args)) | kwargs
        means = names.get("running_mean"), names.get("running_var")
        by_batch = bool(names.get("training")) or any(mean is None for mean in means)
        # Standardised weights (Big Transfer, normaliser-free networks) are normalised by their own
        # statistics, which say nothing about other images.
        if by_batch and self.expressions.find(names["input"]) is None:
            raise GradbenchError(
                "a batch normalisation uses the statistics of the batch, so no image has a "
                "gradient of its own: call model.eval() and give the layer running statistics"
            )

    def release(self) -> None:
        """Let go of every call."""
        for call in self.calls:
            call.release()
        self.calls.clear()
        self.expressions = Expressions((), ())
        self.reorderings.clear()

    def _run_layer(self, layer: Layer, func: Callable, args: Sequence, kwargs: Mapping) -> Any:
        """Run a layer function cut off from its parameters."""
        tensors, uses = list(tensors_in((args, kwargs))), []
        for role, tensor in (("weight", layer.weight), ("bias", layer.bias)):
            known = self.expressions.find(tensor)
            # A tensor that stands in two places at once (x @ W where x is made of W) is left to the
            # fallback: the leaf would stand for both, and the rule accounts for one.
            if known is not None and known.requested and sum(tensor is t for t in tensors) == 1:
                uses.append(ParameterUse(role, known, self._leaf(tensor)))
        leaves = {id(use.expression.tensor): use.leaf for use in uses}
        result = _substituted(func, args, kwargs, leaves)
        if uses and result.requires_grad:
            # Without its graph, which the input would keep alive as long as the call is there.
            x = layer.x.detach() if layer.rule.reads_input else None
            self._record(Call(layer.rule, uses, x), result, result.detach() if x is None else x)
        return result

    def _constant(self, layer: Layer) -> bool:
        """Whether a layer reads the same constant for all images, not one copy for each.

        A network over a table of positions is an expression; over positions that were expanded for
        every image it is a layer like any other. The shape for a batch and for one image tell.
        """
        both = (self.expressions.find(tensor) for tensor in (layer.weight, layer.bias))
        first = next((known for known in both if known is not None and known.requested), None)
        if first is None:
            return True
        probe = Call(layer.rule, [ParameterUse("weight", first, first.tensor)], layer.x)
        self.on_call(probe, layer.x.detach())
        return self.on_delta is None or probe.layout in (None, Layout(None))

    def _run_broadcast(self, func: Callable, args: Sequence, kwargs: Mapping) -> Any:
        """Run a function that broadcasts, with one copy of each parameter per row of the images."""
        how, copies, calls = BROADCASTS[func], {}, []
        in_place = getattr(func, "__name__", "").endswith("_")
        for place, value in (*enumerate(args), *kwargs.items()):
            known = self.expressions.find(value)
            # The tensor that is changed in place must stay itself.
            if known is None or not known.requested or (in_place and place == 0):
                continue
            shape = how.shape_of_copies(place, value, args, kwargs)
            if shape is not None and id(value) not in copies:
                leaf = self._leaf(value)
                copies[id(value)] = leaf.expand(shape)
                call = Call(Broadcast(how.kind, shape), [ParameterUse("weight", known, leaf)])
                calls.append((call, copies[id(value)]))
        result = _substituted(func, args, kwargs, copies)
        for call, copy in calls:
            if copy.requires_grad and result.ndim and len(result) == len(copy):
                self._record(call, copy, result.detach())
        return result

    def _run_copy(self, func: Callable, args: Sequence, kwargs: Mapping) -> Tensor | None:
        """Run a function that copies a parameter for every image; None if it copies otherwise."""
        known = self.expressions.find(args[0])
        if known is None or not known.requested:
            return None
        leaf = self._leaf(args[0])
        result = func(leaf, *args[1:], **kwargs)
        if not (result.requires_grad and copied_per_row(leaf, result)):
            return None
        shape = (1,) * (result.ndim - leaf.ndim) + tuple(leaf.shape)
        call = Call(Broadcast("expand", shape), [ParameterUse("weight", known, leaf)])
        recorded = self._record(call, result, result.detach()) and self.on_delta is not None
        return result if recorded else None

    def _leaf(self, tensor: Tensor) -> Tensor:
        # Without a backward pass nothing need be cut off, and the graph of the outputs stays whole.
        return tensor if self.on_delta is None else tensor.detach().requires_grad_()

    def _record(self, call: Call, y: Tensor, example: Tensor) -> bool:
        """Record a call; return whether it is known where the images lie in it."""
        self.on_call(call, example)
        if self.on_delta is None:
            return True
        if call.layout is not None:
            call.watch(y, self.on_delta)
        self.calls.append(call)
        return call.layout is not None


def _substituted(
    func: Callable, args: Sequence, kwargs: Mapping, instead: Mapping[int, Tensor]
) -> Any:
    """Run a function with other tensors in the place of those with some ids."""
    named = {name: instead.get(id(value), value) for name, value in kwargs.items()}
    return func(*(instead.get(id(value), value) for value in args), **named)


# functions that normalise over the batch -> names of their arguments
BATCH_NORMS: dict[Callable, str] = {
    F.batch_norm: "input running_mean running_var weight bias training",
    torch.batch_norm: "input weight bias running_mean running_var training",
}
# Functions made of layers. PyTorch offers them whole, and what they call would stay unseen.
COMPOSITES = frozenset([F.multi_head_attention_forward])


@cache
def _opened(func: FunctionType) -> FunctionType:
    """Return a copy of a function that does not offer itself to function modes, only its parts."""
    names = {**func.__globals__, "has_torch_function": lambda _: False}
    inner = FunctionType(func.__code__, names, func.__name__, func.__defaults__, func.__closure__)
    inner.__kwdefaults__ = func.__kwdefaults__
    return inner
