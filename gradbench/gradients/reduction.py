"""Statistics of a chunk of images, collected while a backward pass runs."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial

import torch
from torch import Tensor

from gradbench.errors import GradbenchError
from gradbench.gradients.costs import nanoseconds
from gradbench.gradients.graph import Accounting
from gradbench.gradients.materialised import Group, grouped
from gradbench.gradients.one_image import forward_one, same_output
from gradbench.gradients.recorder import Call, ParameterUse
from gradbench.gradients.rules.base import reduced
from gradbench.gradients.task import ALONE, BESIDE, MATERIALISED, Route, Task


class Reduction:
    """Turns inputs and output gradients of layers into statistics, the moment they are known.

    What a layer kept is dropped at once, so that the memory is that of an ordinary backward pass.
    `images` is the size of the chunk; `routes` is filled in.
    """

    def __init__(self, task: Task, images: int, routes: dict[Tensor, Route]):
        self.task, self.routes = task, routes
        parameters = task.parameters.values()
        self.column = {p: i for i, p in enumerate(parameters)}
        double = any(p.dtype == torch.float64 for p in parameters)
        dtype = torch.float64 if double else torch.float32
        self.norms = torch.zeros(images, len(self.column), dtype=dtype, device=task.device)
        count = len(next(iter(task.directions.values()), ()))
        self.products = self.norms.new_zeros(*self.norms.shape, count) if count else None
        self.uses: dict[ParameterUse, Call] = {}
        self.group: dict[ParameterUse, Group] = {}

    def backward(self, accounting: Accounting, value: Tensor) -> None:
        """Run a backward pass of the sum of losses, where all parameters are accounted for."""
        self.uses = accounting.uses
        groups = grouped(self.uses, self.column)
        self.group = {use: group for group in groups for use in group.parts}
        try:
            if accounting.edges:
                # As far as the lowest layers only; their hooks call `reduce` on the way.
                torch.autograd.grad(value * self.task.scale, accounting.edges, allow_unused=True)
            for group in groups:  # whose uses the backward pass did not all meet
                self._finish(group)
        finally:  # also where memory did not suffice: what was materialised is dropped
            self.uses, self.group = {}, {}

    def reduce(self, call: Call, delta: Tensor | None) -> None:
        """Turn a layer's input and output gradient into statistics, during the backward pass."""
        # Others are left to the fallback; and a forward pass may run a backward pass of its own, of
        # an input gradient say, while `self.uses` is still empty.
        uses = [use for use in call.uses if self.uses.get(use) is call]
        if not uses:
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
        # Half precision is for the network's passes; squares and sums of it would overflow.
        precise = torch.float64 if delta.dtype == torch.float64 else torch.float32
        delta = call.layout.images_first(delta).to(precise)
        x = delta if call.x is None else call.layout.images_first(call.x)
        x = x.to(precise) if x.is_floating_point() else x
        call.x = None  # free as soon as autograd lets go of it, too
        with torch.autocast(delta.device.type, enabled=False), torch.no_grad():
            small = [use.role for use in uses if use.role != call.rule.large]
            gradients = call.rule.small_gradients(small, x, delta) if small else {}
            for use in uses:
                if use in self.group:
                    self._materialise(call, use, gradients.get(use.role), x, delta)
                elif use.role == call.rule.large:
                    self._measure_large(call, use, x, delta)
                else:
                    (parameter,) = use.expression.parameters
                    directions = self._directions(use, delta)
                    self._keep(parameter, *reduced(gradients[use.role], directions))
                    self.routes[parameter] = Route(call.rule.kind, MATERIALISED)

    def _measure_large(self, call: Call, use: ParameterUse, x: Tensor, delta: Tensor) -> None:
        """Measure a large parameter that enters this call alone, by the cheapest route."""
        (parameter,) = use.expression.parameters
        device = delta.device.type
        directions = self._directions(use, delta)
        count = 0 if directions is None else len(directions)
        works = call.rule.routes(x.shape, delta.shape, device, count)
        costs = {name: nanoseconds(work, name, device) for name, work in works.items()}
        route = self.task.route
        route = route if route in costs else min(costs, key=costs.get)
        self._keep(parameter, *call.rule.measure(x, delta, route, directions))
        self.routes[parameter] = Route(call.rule.kind, route, costs)

    def _materialise(
        self, call: Call, use: ParameterUse, gradients: Tensor | None, x: Tensor, delta: Tensor
    ) -> None:
        """Add a call's part to gradients that are materialised, and reduce those that are whole."""
        group, shape = self.group[use], use.expression.tensor.shape
        if gradients is not None:
            group.parts[use] = gradients.reshape(len(delta), *shape).__getitem__
        else:  # a large parameter: block by block, when all parts are there
            group.parts[use] = partial(_large_gradients, call, x, delta, shape)
        for parameter in group.parameters:
            self.routes[parameter] = Route(call.rule.kind, MATERIALISED)
        if None not in group.parts.values():  # the backward pass has met every use
            self._finish(group)

    def _finish(self, group: Group) -> None:
        """Reduce the gradients of a group of parameters."""
        for block, gradients in group.gradients(len(self.norms)):
            for parameter, gradient in zip(group.parameters, gradients):
                directions = self.task.directions.get(parameter)
                self._keep(parameter, *reduced(gradient, directions), block)
        group.parts.clear()

    def _directions(self, use: ParameterUse, delta: Tensor) -> Tensor | None:
        """Return the directions of a use's one parameter in the shape that the call reads."""
        (parameter,) = use.expression.parameters
        directions = self.task.directions.get(parameter)
        if directions is None:
            return None
        if use.expression.tensor is not parameter:
            directions = torch.stack([use.expression.reshape(v) for v in directions])
        return directions.to(delta)

    def _keep(
        self,
        parameter: Tensor,
        norms: Tensor,
        products: Tensor | None,
        block: slice | None = None,
    ) -> None:
        column, scale = self.column[parameter], self.task.scale
        block = slice(None) if block is None else block
        self.norms[block, column] = norms.to(self.norms) / scale**2
        if products is not None:
            self.products[block, column] = products.to(self.norms) / scale

    def one_at_a_time(
        self, images: Tensor, outputs: Tensor, without_rule: Collection[Tensor]
    ) -> None:
        """Compute all statistics by one backward pass per image: the exact fallback.

        Only some parameters need it; the passes give the gradients of the others too. `outputs` are
        those of the batch, as a check.
        """
        task, parameters, without_rule = self.task, list(self.column), frozenset(without_rule)
        for i in range(len(images)):
            image, together = images[i : i + 1], outputs[i : i + 1]
            value = task.loss(image, same_output(forward_one(task.model, image), together)).sum()
            gradients = torch.autograd.grad(value * task.scale, parameters, allow_unused=True)
            for parameter, gradient in zip(parameters, gradients):
                if gradient is not None:
                    alone = ALONE if parameter in without_rule else BESIDE
                    self.routes[parameter] = Route("", alone)
            dense = [torch.zeros_like(p) if g is None else g for g, p in zip(gradients, parameters)]
            dense = [g.to_dense() if g.is_sparse else g for g in dense]
            dense = [g.float() if g.dtype.itemsize < 4 else g for g in dense]  # halves overflow
            norms = torch.stack([torch.linalg.vector_norm(g).double() for g in dense]).square()
            self.norms[i] = (norms / task.scale**2).to(self.norms)
            if task.directions:
                pairs = zip(dense, (task.directions[p] for p in parameters))
                products = torch.stack(
                    [(v * g).reshape(len(v), -1).sum(1).double() for g, v in pairs]
                )
                self.products[i] = (products / task.scale).to(self.norms)


def _large_gradients(
    call: Call, x: Tensor, delta: Tensor, shape: torch.Size, block: slice
) -> Tensor:
    return call.rule.large_gradients(x[block], delta[block], shape)
