"""Statistics of every parameter's per-image gradient from one batched pass.

In evaluation mode the loss J_b depends on image b alone, so one backward pass of sum_b J_b gives at
every layer the gradient delta_b with respect to its output. The statistics of the weight gradient
follow from the layer's input and delta_b (the rules) the moment delta_b arrives; ordinary weight
gradients are never computed, and what a layer kept is dropped at once. Whatever the rules do not
account for completely (graph.py) is computed one image at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from gradbench.errors import GradbenchError
from gradbench.gradients import guard, kept
from gradbench.gradients.costs import cheapest
from gradbench.gradients.door import taking
from gradbench.gradients.graph import ownership
from gradbench.gradients.memory import out_of_memory
from gradbench.gradients.recorder import Call, Recorder
from gradbench.gradients.single import compared, statistics_alone, try_channels_last
from gradbench.gradients.state import (
    BACKWARD_HOOKS,
    FORWARD_HOOKS,
    callers_hooks,
    without_callers_hooks,
)
from gradbench.gradients.task import ALONE, FORMED, UNUSED, Found, Taken, Task
from gradbench.gradients.witness import Witness, signature

# network -> size of a batch -> its witness, and whether it takes channels last; forgotten with the
# network
_SEEN: WeakKeyDictionary[nn.Module, dict[int, tuple[Witness, bool]]] = WeakKeyDictionary()
SIZES = 8
"""Sizes of batches that are remembered for a network."""


class Engine:
    """Forward and backward pass of one chunk after the other."""

    def __init__(self, task: Task, device: torch.device):
        self.task, self.device = task, device
        self.column = {p: i for i, p in enumerate(task.parameters)}
        self.dtype = (
            torch.float64
            if any(p.dtype == torch.float64 for p in task.parameters)
            else torch.float32
        )
        self.channels_last = task.channels_last
        self.witness: Witness | None = None
        self.owned: dict[Tensor, Call] = {}
        self.taken: dict[Tensor, Taken] = dict.fromkeys(task.parameters, Taken("", UNUSED))

    def __call__(self, images: Tensor) -> Found:
        """Return the statistics of these images."""
        # Autograd may not keep the tensors of inference mode, hence the copy of those.
        images = images.to(self.device)
        images = images.clone() if images.is_inference() else images
        if self.witness is None:
            self.witness = self._see_first(images)
        self.witness.images = len(images)
        if self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        shape = (len(images), len(self.task.parameters))
        self.norms = torch.zeros(shape, dtype=self.dtype, device=self.device)
        self.products = torch.zeros_like(self.norms) if self.task.directions else None
        try:
            outputs = self._recorded(images)
            shared = self._backward(images, outputs)
            outputs = outputs.detach()
            if shared:
                self.recorder.release()
                self._alone(images, outputs, shared)
        except RuntimeError as fault:
            if "backward through the graph a second time" not in str(fault):
                raise
            raise GradbenchError(
                "the network keeps tensors made of its parameters from one forward pass to the "
                "next, with a graph that one backward pass uses up: let it compute them in every "
                "pass"
            ) from fault
        finally:
            self.recorder.release()
            self.owned = {}
        return Found(self.norms, self.products, outputs)

    def _recorded(self, images: Tensor) -> Tensor:
        """Run the network on a chunk, watched by a witness that knows the path taken."""
        model, hooks = self.task.model, BACKWARD_HOOKS
        outputs = self._forward(images, hooks)
        path = self.recorder.path
        if self.witness.strays(path):
            # Something else is computed: look at one image again. The caller's hooks have seen
            # these images, and may be what changed.
            self.recorder.release()
            self.witness = self._see_first(images, afresh=True)
            self.witness.images, hooked = len(images), outputs.detach()
            outputs = self._forward(images, (*FORWARD_HOOKS, *hooks))
            compared(outputs.detach(), hooked)
        self.witness.compare(model, images, outputs.detach(), path)
        seen = _SEEN.setdefault(model, {})
        seen[len(images)] = (self.witness, self.channels_last)
        while len(seen) > SIZES:
            del seen[next(iter(seen))]
        return outputs

    def _forward(self, images: Tensor, hooks: Sequence[str]) -> Tensor:
        """Run the network on a chunk under a recorder, with these hooks of the caller suspended.

        Those of the backward pass always are: some routes miss them.
        """
        model = self.task.model
        self.recorder = Recorder(self.task.parameters, self.witness.judge, self._reduce)
        start = self.recorder.path.start
        with (
            guard.refuse_randomness(self.device),
            without_callers_hooks(model, hooks),
            callers_hooks(model, FORWARD_HOOKS, self.recorder.path.beside),
            kept.passing(model),
        ):
            given = start(images.clone())  # which networks may change in place
            try:
                with self.recorder:
                    outputs = model(given)
            except RuntimeError as fault:
                if not (self.channels_last and self.witness.first) or out_of_memory(fault):
                    raise
                self.channels_last = False
                self.recorder.release()
                given = start(images.contiguous())
                with self.recorder:
                    outputs = model(given)
        guard.check_outputs(outputs, images, model)
        return outputs

    def _see_first(self, images: Tensor, afresh: bool = False) -> Witness:
        """Look at the first image alone, and find out whether channels may come last."""
        model, wanted = self.task.model, self.task.channels_last
        how = (torch.is_autocast_enabled(self.device.type), wanted, *map(id, self.task.parameters))
        now = signature(model, images, how)
        known = _SEEN.get(model, {}).get(len(images))
        if known is not None and known[0].signature == now and not afresh:
            witness, self.channels_last = known
            kept.use(witness.way, model)
            return witness
        with guard.refuse_randomness(self.device), taking(model, images):
            make = partial(Witness, model, parameters=self.task.parameters)
            witness, self.channels_last = try_channels_last(make, images[:1], wanted)
        witness.signature = now
        former = _SEEN.get(model, {}).items()
        _SEEN[model] = {size: known for size, known in former if known[0].signature == now}
        return witness

    def _backward(self, images: Tensor, outputs: Tensor) -> list[Tensor]:
        """Run the backward pass; return the parameters that the rules do not account for."""
        losses = guard.per_image_loss(self.task.loss, images, outputs, self.task.known)
        calls = [call for call in self.recorder.calls if call.layout is not None]
        asked = [p for p in self.task.parameters if self.task.forced.get(p) != ALONE]
        graph = ownership(losses, calls, asked)
        unused = [p for p in self.task.parameters if p not in graph.leaves]
        self.witness.check_unused(self.task.model, images, outputs, unused)
        if not losses.requires_grad:
            return []
        if self.witness.moves_images(self.recorder.moves):
            return list(self.task.parameters)
        self.owned = graph.owned
        if graph.edges:
            torch.autograd.grad(losses.sum() * self.task.scale, graph.edges, allow_unused=True)
        return [*graph.shared, *(p for p, r in self.task.forced.items() if r == ALONE)]

    def _reduce(self, call: Call, delta: Tensor) -> None:
        """Turn a layer's input and output gradient into statistics, during the backward pass."""
        mine = {p: role for p, role in call.roles.items() if self.owned.get(p) is call}
        if not mine:
            return
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
        route = self._route(call, mine, x.shape, delta.shape)
        asked = {
            role: call.views[p](self.task.directions[p]).to(precise)
            if p in self.task.directions
            else None
            for p, role in mine.items()
        }
        with torch.autocast(delta.device.type, enabled=False), torch.no_grad():
            found = call.rule.measure(asked, x, delta, route, self.task.compiled)
            for p, role in mine.items():
                column, measured = self.column[p], found[role]
                self.norms[:, column] = measured.norms.to(self.norms) / self.task.scale**2
                if measured.products is not None:
                    products = measured.products.to(self.norms) / self.task.scale
                    self.products[:, column] = products
                how = route if role == call.rule.large else FORMED
                self.taken[p] = Taken(call.rule.kind, how, call.rule, x.shape, delta.shape)

    def _route(
        self, call: Call, mine: Mapping[Tensor, str], x: torch.Size, delta: torch.Size
    ) -> str | None:
        """Return the route of the call's large parameter, if it is asked for."""
        parameter = next((p for p, role in mine.items() if role == call.rule.large), None)
        if parameter is None:
            return None
        routes = call.rule.routes(x, delta, self.device.type)
        forced = self.task.forced.get(parameter)
        return forced if forced in routes else cheapest(routes, self.device.type)

    def _alone(self, images: Tensor, outputs: Tensor, shared: Sequence[Tensor]) -> None:
        """Compute the statistics of some parameters one image at a time."""
        task, columns = self.task, [self.column[p] for p in shared]
        directions = [task.directions[p] for p in shared] if task.directions else None
        norms, products = statistics_alone(
            task.model, images, outputs, task.loss, shared, directions, task.scale
        )
        self.norms[:, columns] = norms.to(self.norms)
        if products is not None:
            self.products[:, columns] = products.to(self.norms)
        self.taken.update(dict.fromkeys(shared, Taken("", ALONE)))
