"""A function mode that notes every call whose weight or bias is one of the asked parameters.

It sees functions, not modules: functional code and layers called twice are noted like any other.
What it does not see (compiled or scripted code, functions without a rule) costs nothing but time:
`graph.py` finds out which parameters the notes account for completely.
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

from gradbench.gradients.layout import Layout
from gradbench.gradients.meetings import MEETINGS, RESHAPES, met
from gradbench.gradients.movers import INDEXED, moved, plain_index
from gradbench.gradients.path import Path
from gradbench.gradients.readers import READERS, Reading
from gradbench.gradients.rules.base import Rule
from gradbench.gradients.statistics import of_its_own_statistics


@dataclass(eq=False)
class Call:
    """One call of a layer function.

    Args:
        rule: what turns input and output gradient into statistics.
        roles: asked parameter -> its role in the rule.
        views: parameter -> function that gives a direction the shape in which the call reads it.
        x: input, if the rule reads it.
        layout: where the images lie in input and output; None where that is not known.
    """

    rule: Rule
    roles: dict[Tensor, str]
    views: dict[Tensor, Callable[[Tensor], Tensor]]
    x: Tensor | None
    layout: Layout | None = None
    node: Any = field(default=None, init=False)
    edge: Any = field(default=None, init=False)
    handle: Any = field(default=None, init=False)
    version: int = field(default=0, init=False)

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
        self.roles = {}


@dataclass(frozen=True)
class _View:
    """A parameter in another shape, with the number of in-place changes when it was made."""

    parameter: Tensor
    view: Tensor
    version: int
    steps: tuple[Callable[[Tensor], Tensor], ...]


class Recorder(TorchFunctionMode):
    """Notes the calls that a set of parameters enters; use around a forward pass.

    Args:
        parameters: the parameters that are asked for.
        on_call: called with each call and the tensor that shows where its images lie.
        on_delta: called in the backward pass with each call and the gradient of its output.
    """

    def __init__(
        self,
        parameters: Sequence[Tensor],
        on_call: Callable[[Call, Tensor], None],
        on_delta: Callable[[Call, Tensor], None] | None = None,
    ):
        super().__init__()
        self.parameters = frozenset(parameters)
        self.on_call, self.on_delta = on_call, on_delta
        self.calls: list[Call] = []
        self.views: dict[int, _View] = {}
        # what was picked or reordered, see movers.py
        self.moves: list[tuple[int, ...]] = []
        self.path = Path()
        # whether something was normalised by its own statistics, see statistics.py
        self.normalised = False

    def __torch_function__(
        self,
        func: Callable,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run the function and note it when it is a layer with an asked parameter."""
        kwargs = kwargs or {}
        if func in COMPOSITES:
            with self:
                return _seen_through(func)(*args, **kwargs)
        along = moved(func, args, kwargs)
        if along is not None:
            self.moves.append(along)
        reader = READERS.get(func)
        # Before the function runs: a layer in training mode is refused before it changes buffers.
        reading = reader(*args, **kwargs) if reader else None
        self.normalised = self.normalised or of_its_own_statistics(func, args, kwargs)
        result = func(*args, **kwargs)
        self.path.note(func, args, kwargs, result)
        if func in RESHAPES and not (func in INDEXED and not plain_index(args[1])):
            self._note_view(func, args, kwargs, result)
        if func in MEETINGS and not (kwargs and func not in _SIZES):
            reading = self._meeting(func, args, result)
        if reading is not None and result.requires_grad:
            self._note(reading, result)
        return result

    def release(self) -> None:
        """Let go of every call."""
        for call in self.calls:
            call.release()
        self.calls.clear()
        self.views.clear()
        self.moves.clear()

    def _note(self, reading: Reading, result: Tensor) -> None:
        roles, views = {}, {}
        for role, tensor in (("weight", reading.weight), ("bias", reading.bias)):
            found = self._resolve(tensor)
            if found is not None:
                parameter, steps = found
                if parameter in roles:  # in two roles at once: for the fallback
                    return
                flip = (torch.t,) if reading.flipped and role == "weight" else ()
                roles[parameter] = role
                views[parameter] = partial(_through, steps + flip)
        if not roles:
            return
        x = reading.x.detach() if reading.rule.reads_input else None
        call = Call(reading.rule, roles, views, x)
        self.on_call(call, result.detach() if x is None else x)
        self.calls.append(call)
        if self.on_delta is not None and call.layout is not None:
            call.watch(result, self.on_delta)

    def _meeting(self, func: Callable, args: Sequence[Any], result: Tensor) -> Reading | None:
        kind, sign, positions = MEETINGS[func]
        for position in positions:
            if position < len(args) and self._resolve(args[position]) is not None:
                return met(kind, sign, position, args, result)
        return None

    def _resolve(self, tensor: Any) -> tuple[Tensor, tuple] | None:
        """Return the asked parameter that a tensor is, or is a view of, and the steps between."""
        if not isinstance(tensor, Tensor):
            return None
        if tensor in self.parameters:
            return tensor, ()
        found = self.views.get(id(tensor))
        if found is None or tensor._version != found.version:
            return None
        return found.parameter, found.steps

    def _note_view(self, func: Callable, args: Sequence, kwargs: Mapping, result: Tensor) -> None:
        source = self._resolve(args[0]) if args else None
        if source is None or not isinstance(result, Tensor):
            return
        parameter, steps = source
        if result.numel() == parameter.numel() and result is not args[0]:
            step = partial(_replay, func, tuple(args[1:]), dict(kwargs))
            # The view is kept, or another tensor could come by its id.
            self.views[id(result)] = _View(parameter, result, result._version, (*steps, step))


# Functions made of layers. PyTorch offers them whole, and what they call would stay unseen.
COMPOSITES = frozenset([F.multi_head_attention_forward])


@cache
def _seen_through(func: FunctionType) -> FunctionType:
    """Return a copy of a function that does not offer itself to function modes."""
    names = {**func.__globals__, "has_torch_function": lambda _: False}
    inner = FunctionType(func.__code__, names, func.__name__, func.__defaults__, func.__closure__)
    inner.__kwdefaults__ = func.__kwdefaults__
    return inner


# Functions whose keyword arguments do not change what is computed.
_SIZES = frozenset([torch.Tensor.expand])


def _replay(func: Callable, args: tuple, kwargs: dict, values: Tensor) -> Tensor:
    return func(values, *args, **kwargs)


def _through(steps: Sequence[Callable[[Tensor], Tensor]], values: Tensor) -> Tensor:
    for step in steps:
        values = step(values)
    return values
