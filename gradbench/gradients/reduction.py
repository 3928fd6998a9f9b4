"""Statistics of a chunk of images, gathered while a backward pass runs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial

import torch
from torch import Tensor

from gradbench.errors import GradbenchError
from gradbench.gradients.costs import cheapest
from gradbench.gradients.formed import Group, groups
from gradbench.gradients.graph import Ownership
from gradbench.gradients.recorder import Call, Entry
from gradbench.gradients.rules.base import Measured, Rule, reduced
from gradbench.gradients.task import ALONE, BESIDE, FORMED, Taken, Task


class Reduction:
    """Turns inputs and output gradients of layers into statistics, the moment they are known.

    Args:
        task: what is computed.
        images: number of images of the chunk.
        device: of the statistics.
        taken: parameter -> how it was computed; filled in.

    Attributes:
        norms: squared norms, (images, d).
        products: inner products, (images, d); None without directions.
    """

    def __init__(self, task: Task, images: int, device: torch.device, taken: dict[Tensor, Taken]):
        self.task, self.taken = task, taken
        self.column = {p: i for i, p in enumerate(task.parameters)}
        double = any(p.dtype == torch.float64 for p in task.parameters)
        dtype = torch.float64 if double else torch.float32
        shape = (images, len(task.parameters))
        self.norms = torch.zeros(shape, dtype=dtype, device=device)
        self.products = torch.zeros_like(self.norms) if task.directions else None
        self.entries: dict[Entry, Call] = {}
        self.group: dict[Entry, Group] = {}

    def backward(self, graph: Ownership, value: Tensor) -> None:
        """Run a backward pass of the sum of losses, where all parameters are accounted for."""
        self.entries = graph.entries
        wanted = [p for p in self.task.parameters if self.task.forced.get(p) != ALONE]
        found = groups(graph.entries, wanted)
        self.group = {entry: group for group in found for entry in group.entries}
        try:
            if graph.edges:
                torch.autograd.grad(value * self.task.scale, graph.edges, allow_unused=True)
            for group in found:  # whose entries the backward pass did not all meet
                self._finish(group)
        finally:  # also where memory did not suffice: what was formed is dropped
            self.entries, self.group = {}, {}

    def reduce(self, call: Call, delta: Tensor | None) -> None:
        """Turn a layer's input and output gradient into statistics, during the backward pass."""
        mine = [entry for entry in call.entries if self.entries.get(entry) is call]
        if not mine:
            return
        if delta is None:
            raise GradbenchError(
                f"a function behind a {call.rule.kind} layer hands back no gradient, so that "
                "parameters before it act where autograd does not see it"
            )
        if call.x is not None and call.x._version != call.version:
            raise GradbenchError(
                f"the input of a {call.rule.kind} layer was changed in place after the layer had "
                "read it"
            )
        precise = torch.float64 if delta.dtype == torch.float64 else torch.float32
        delta = call.layout.images_first(delta).to(precise)
        x = delta if call.x is None else call.layout.images_first(call.x)
        x = x.to(precise) if x.is_floating_point() else x
        call.x = None
        with torch.autocast(delta.device.type, enabled=False), torch.no_grad():
            self._measure(call, [e for e in mine if e not in self.group], x, delta)
            self._form(call, [e for e in mine if e in self.group], x, delta)

    def _measure(self, call: Call, entries: list[Entry], x: Tensor, delta: Tensor) -> None:
        """Let the rule measure parameters that enter this call alone."""
        asked, mine = {}, {}
        for entry in entries:
            (mine[entry.role],) = entry.source.parameters
            direction = self.task.directions.get(mine[entry.role])
            asked[entry.role] = None if direction is None else entry.view(direction).to(delta)
        route = None
        if call.rule.large in mine:
            routes = call.rule.routes(x.shape, delta.shape, delta.device.type)
            forced = self.task.forced.get(mine[call.rule.large])
            route = forced if forced in routes else cheapest(routes, delta.device.type)
        if not asked:
            return
        found = call.rule.measure(asked, x, delta, route, self.task.compiled)
        for role, parameter in mine.items():
            self._keep(parameter, found[role], slice(None))
            how = route if role == call.rule.large else FORMED
            self.taken[parameter] = Taken(call.rule.kind, how, call.rule, x.shape, delta.shape)

    def _form(self, call: Call, entries: list[Entry], x: Tensor, delta: Tensor) -> None:
        """Note what a call adds to gradients that are formed, and reduce those that are whole."""
        small = {entry.role: None for entry in entries if entry.role != call.rule.large}
        formed = call.rule.gradients(small, x, delta) if small else {}
        for entry in entries:
            group, shape = self.group[entry], entry.source.tensor.shape
            if entry.role in formed:
                group.entries[entry] = formed[entry.role].reshape(len(delta), *shape).__getitem__
            else:
                how = (_formed, call.rule, x, delta, shape, entry.flipped)
                group.entries[entry] = partial(*how)
            for parameter in group.parameters:
                self.taken[parameter] = Taken(call.rule.kind, FORMED, call.rule)
            if group.complete:
                self._finish(group)

    def _finish(self, group: Group) -> None:
        """Reduce the gradients of a group of parameters."""
        for block, gradients in group.gradients(len(self.norms)):
            for parameter, gradient in zip(group.parameters, gradients):
                self._keep(parameter, reduced(gradient, self.task.directions.get(parameter)), block)
        group.entries.clear()

    def _keep(self, parameter: Tensor, measured: Measured, block: slice) -> None:
        column, scale = self.column[parameter], self.task.scale
        norms = self.norms[:, column]
        norms[block] = measured.norms.to(norms) / scale**2
        if measured.products is not None:
            self.products[:, column][block] = measured.products.to(norms) / scale

    def keep_alone(
        self,
        parameters: Sequence[Tensor],
        alone: Collection[Tensor],
        norms: Tensor,
        products: Tensor | None,
        acting: Collection[Tensor],
    ) -> None:
        """Keep statistics that were computed one image at a time, for the sake of some of them.

        Args:
            parameters: the parameters, d of them.
            alone: those for whose sake it was done.
            norms: squared norms, (images, d).
            products: inner products, (images, d), or None.
            acting: those that act on the loss; the others stay unused.
        """
        columns = [self.column[p] for p in parameters]
        self.norms[:, columns] = norms.to(self.norms)
        if products is not None:
            self.products[:, columns] = products.to(self.norms)
        for parameter in acting:
            self.taken[parameter] = Taken("", ALONE if parameter in alone else BESIDE)


def _formed(
    rule: Rule, x: Tensor, delta: Tensor, shape: torch.Size, flipped: bool, block: slice
) -> Tensor:
    """Form the gradients of a large parameter for a block of images."""
    found = rule.formed(x[block], delta[block], shape)
    return found.transpose(1, 2) if flipped else found
