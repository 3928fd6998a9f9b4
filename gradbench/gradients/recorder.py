"""A function mode that notes every call in which the asked parameters meet the images.

It sees functions, not modules: functional code and layers called twice are noted like any other. A
noted call is given a leaf in place of the parameter, or of the tensor made of parameters, so that
the call is cut off from them: what still reaches a parameter in the graph was not accounted for
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

from gradbench.gradients.layout import Layout
from gradbench.gradients.meetings import MEETINGS, REPEATS, repeated, spread
from gradbench.gradients.movers import moved
from gradbench.gradients.path import Path
from gradbench.gradients.readers import READERS, Reading
from gradbench.gradients.rules.base import Rule
from gradbench.gradients.rules.broadcast import Broadcast
from gradbench.gradients.sources import Source, Sources, tensors, through
from gradbench.gradients.statistics import of_its_own_statistics


@dataclass(eq=False)
class Entry:
    """What enters one call in one role.

    Args:
        role: its role in the rule.
        source: the parameter, or the tensor made of parameters alone.
        leaf: what the call was given in its place.
        flipped: whether the call reads it transposed.
    """

    role: str
    source: Source
    leaf: Tensor
    flipped: bool = False

    def view(self, direction: Tensor) -> Tensor:
        """Return a direction of the parameter's shape in the shape in which the call reads it."""
        direction = through(self.source.steps, direction)
        return direction.t() if self.flipped else direction


@dataclass(eq=False)
class Call:
    """One call of a layer function.

    Args:
        rule: what turns input and output gradient into statistics.
        entries: parameters, or tensors made of them, that enter it.
        x: input, if the rule reads it.
        layout: where the images lie in input and output; None where that is not known.
    """

    rule: Rule
    entries: list[Entry]
    x: Tensor | None = None
    layout: Layout | None = None
    node: Any = field(default=None, init=False)
    edge: Any = field(default=None, init=False)
    handle: Any = field(default=None, init=False)
    version: int = field(default=0, init=False)

    @property
    def parameters(self) -> frozenset[Tensor]:
        """The asked parameters that act through the first entry."""
        return self.entries[0].source.parameters

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
        self.entries = []


class Recorder(TorchFunctionMode):
    """Notes the calls that a set of parameters enters; use around a forward pass.

    Args:
        held: the tensors that the network holds.
        parameters: the parameters that are asked for.
        on_call: called with each call and the tensor that shows where its images lie.
        on_delta: called in the backward pass with each call and the gradient of its output; without
            it nothing is cut off.
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
        self.sources = Sources(held, parameters)
        self.on_call, self.on_delta = on_call, on_delta
        self.calls: list[Call] = []
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
        """Run the function and note it when asked parameters meet the images in it."""
        kwargs = kwargs or {}
        if func in COMPOSITES:
            with self:
                return _seen_through(func)(*args, **kwargs)
        self.normalised = self.normalised or of_its_own_statistics(func, args, kwargs)
        result = self._run(func, args, kwargs)
        self.path.note(func, args, kwargs, result)
        return result

    def _run(self, func: Callable, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        along = moved(func, args, kwargs)
        if along is not None:
            self.moves.append(along)
        found = [self.sources.find(tensor) for tensor in tensors((args, kwargs))]
        alone = None not in found
        if any(source is not None and source.asked for source in found):
            if func in REPEATS:
                return self._repeat(func, args, kwargs, alone)
            if func in READERS:
                reading = READERS[func](*args, **kwargs)
                if reading is not None and not (alone and self._constant(reading)):
                    return self._read(reading, func, args, kwargs)
            if not alone and func in MEETINGS:
                return self._meet(func, args, kwargs)
        return self.sources.follow(func, args, kwargs) if alone else func(*args, **kwargs)

    def restart(self) -> None:
        """Forget what was noted and begin with another forward pass."""
        self.release()
        self.sources, self.path = Sources(self.held, self.parameters), Path()

    def release(self) -> None:
        """Let go of every call."""
        for call in self.calls:
            call.release()
        self.calls.clear()
        self.sources.clear()
        self.moves.clear()

    def _read(self, reading: Reading, func: Callable, args: Sequence, kwargs: Mapping) -> Any:
        """Run a layer function that has a reader, cut off from its parameters."""
        given, entries = list(tensors((args, kwargs))), []
        for role, tensor in (("weight", reading.weight), ("bias", reading.bias)):
            source = self.sources.find(tensor)
            # In two places at once: for the fallback.
            if source is not None and source.asked and sum(tensor is t for t in given) == 1:
                flipped = reading.flipped and role == "weight"
                entries.append(Entry(role, source, self._leaf(tensor), flipped))
        leaves = {id(entry.source.tensor): entry.leaf for entry in entries}
        result = func(*(leaves.get(id(a), a) for a in args),
                      **{k: leaves.get(id(a), a) for k, a in kwargs.items()})  # fmt: skip
        if entries and result.requires_grad:
            x = reading.x.detach() if reading.rule.reads_input else None
            self._note(Call(reading.rule, entries, x), result, result.detach() if x is None else x)
        return result

    def _constant(self, reading: Reading) -> bool:
        """Whether a layer reads the same constant for all images, not one copy for each."""
        found = (self.sources.find(tensor) for tensor in (reading.weight, reading.bias))
        source = next((source for source in found if source is not None and source.asked), None)
        if source is None:
            return True
        probe = Call(reading.rule, [Entry("weight", source, source.tensor)], reading.x)
        self.on_call(probe, reading.x.detach())
        return self.on_delta is None or probe.layout in (None, Layout(None))

    def _meet(self, func: Callable, args: Sequence, kwargs: Mapping) -> Any:
        """Run a function that broadcasts, with one copy of each parameter per row of the images."""
        meeting, copies = MEETINGS[func], []
        in_place = getattr(func, "__name__", "").endswith("_")
        given = {**dict(enumerate(args)), **kwargs}
        for place, value in list(given.items()):
            source = self.sources.find(value)
            if source is None or not source.asked or (in_place and place == 0):
                continue
            shape = spread(meeting, place, value, args, kwargs)
            if shape is not None:
                leaf = self._leaf(value)
                given[place] = leaf.expand(shape)
                rule = Broadcast(meeting.kind, shape)
                copies.append((Call(rule, [Entry("weight", source, leaf)]), given[place]))
        result = func(*(given[i] for i in range(len(args))), **{k: given[k] for k in kwargs})
        for call, copy in copies:
            if copy.requires_grad and result.ndim and len(result) == len(copy):
                self._note(call, copy, result.detach())
        return result

    def _repeat(self, func: Callable, args: Sequence, kwargs: Mapping, alone: bool) -> Any:
        """Run a function that copies a parameter, for every image or for something else."""
        source = self.sources.find(args[0])
        if source is not None and source.asked:
            leaf = self._leaf(args[0])
            result = func(leaf, *args[1:], **kwargs)
            if result.requires_grad and repeated(leaf, result):
                shape = (1,) * (result.ndim - leaf.ndim) + tuple(leaf.shape)
                call = Call(Broadcast("expand", shape), [Entry("weight", source, leaf)])
                if self._note(call, result, result.detach()) and self.on_delta is not None:
                    return result
        return self.sources.follow(func, args, kwargs) if alone else func(*args, **kwargs)

    def _leaf(self, tensor: Tensor) -> Tensor:
        return tensor if self.on_delta is None else tensor.detach().requires_grad_()

    def _note(self, call: Call, y: Tensor, shown: Tensor) -> bool:
        """Note a call; return whether it is known where the images lie in it."""
        self.on_call(call, shown)
        if self.on_delta is None:
            return True
        if call.layout is not None:
            call.watch(y, self.on_delta)
        self.calls.append(call)
        return call.layout is not None


# Functions made of layers. PyTorch offers them whole, and what they call would stay unseen.
COMPOSITES = frozenset([F.multi_head_attention_forward])


@cache
def _seen_through(func: FunctionType) -> FunctionType:
    """Return a copy of a function that does not offer itself to function modes."""
    names = {**func.__globals__, "has_torch_function": lambda _: False}
    inner = FunctionType(func.__code__, names, func.__name__, func.__defaults__, func.__closure__)
    inner.__kwdefaults__ = func.__kwdefaults__
    return inner
