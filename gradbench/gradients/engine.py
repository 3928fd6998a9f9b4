"""Statistics of every parameter's per-image gradient from one batched pass.

In evaluation mode the loss J_b depends on image b alone, so one backward pass of sum_b J_b gives at
every layer the gradient delta_b with respect to its output. The statistics of the weight gradient
follow from the layer's input and delta_b (the rules) the moment delta_b arrives; ordinary weight
gradients are never computed, and what a layer kept is dropped at once. Where the rules do not
account for a parameter completely (graph.py), every image has a pass of its own, in which autograd
gives that parameter's gradient and the rules, as before, the statistics of all others.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from gradbench.errors import GradbenchError
from gradbench.gradients import guard, kept
from gradbench.gradients.costs import cheapest
from gradbench.gradients.door import taking
from gradbench.gradients.formed import Group, Part, groups
from gradbench.gradients.graph import Ownership, ownership
from gradbench.gradients.memory import out_of_memory
from gradbench.gradients.recorder import Call, Entry, Recorder
from gradbench.gradients.rules.base import Measured, Rule, reduced
from gradbench.gradients.single import (
    compared,
    forward_alone,
    statistics_alone,
    statistics_of,
    try_channels_last,
)
from gradbench.gradients.sources import held_by
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
        self.held = held_by(task.model)
        self.column = {p: i for i, p in enumerate(task.parameters)}
        self.dtype = (
            torch.float64
            if any(p.dtype == torch.float64 for p in task.parameters)
            else torch.float32
        )
        self.channels_last = task.channels_last
        self.witness: Witness | None = None
        # what needs a pass for every image, as far as it is known
        self.alone = [p for p in task.parameters if task.forced.get(p) == ALONE]
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
        self.rows = slice(None)
        try:
            outputs = self._recorded(images)
            acts = self._together(images, outputs)
            outputs = outputs.detach()
            if self.alone and acts:
                self.recorder.release()
                self._alone(images, outputs)
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
        self.recorder = Recorder(self.held, self.task.parameters, self.witness.judge, self._reduce)
        with (
            guard.refuse_randomness(self.device),
            without_callers_hooks(model, hooks),
            callers_hooks(model, FORWARD_HOOKS, self.recorder.path.beside),
            kept.passing(model),
        ):
            given = self.recorder.path.start(images.clone())  # which networks may change in place
            try:
                with self.recorder:
                    outputs = model(given)
            except RuntimeError as fault:
                if not (self.channels_last and self.witness.first) or out_of_memory(fault):
                    raise
                self.channels_last = False
                self.recorder.restart()
                given = self.recorder.path.start(images.contiguous())
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
            make = partial(Witness, model, parameters=self.task.parameters, held=self.held)
            witness, self.channels_last = try_channels_last(make, images[:1], wanted)
        witness.signature = now
        former = _SEEN.get(model, {}).items()
        _SEEN[model] = {size: known for size, known in former if known[0].signature == now}
        return witness

    def _together(self, images: Tensor, outputs: Tensor) -> bool:
        """Run the backward pass of a chunk, unless its images need passes of their own.

        Returns:
            Whether any parameter acts on the loss.
        """
        losses = guard.per_image_loss(self.task.loss, images, outputs, self.task.known)
        graph = ownership(losses, self.recorder.calls, self.task.parameters)
        unused = [p for p in self.task.parameters if p not in graph.acting]
        self.witness.check_unused(self.task.model, images, outputs, unused, self.recorder.calls)
        if not losses.requires_grad:
            return False
        if self.witness.moves_images(self.recorder.moves):
            self.alone = list(self.task.parameters)
        if not self.alone:
            self.alone = graph.shared
        if not self.alone:
            self._backward(graph, losses.sum())
        return True

    def _alone(self, images: Tensor, outputs: Tensor) -> None:
        """Compute the statistics of a chunk, image by image."""
        task = self.task
        for i, (image, together) in enumerate(zip(images.split(1), outputs.split(1))):
            self.rows = slice(i, i + 1)
            done = False
            while not done and len(self.alone) < len(task.parameters):
                done = self._one(image, together)
            if not done:
                directions = [task.directions[p] for p in self.alone] if task.directions else None
                found = statistics_alone(
                    task.model, image, together, task.loss, self.alone, directions, task.scale
                )
                self._keep_alone(*found)

    def _one(self, image: Tensor, together: Tensor) -> bool:
        """Compute the statistics of one image; return False if more parameters are alone."""
        task, self.witness.images = self.task, 1
        recorder = Recorder(
            self.held, task.parameters, self.witness.judge, self._reduce, self.alone
        )
        try:
            with recorder:
                output = forward_alone(task.model, image)
            value = task.loss(image, compared(output, together)).sum()
            graph = ownership(value, recorder.calls, task.parameters)
            known = set(self.alone)
            more = [p for p in graph.shared if p not in known]
            self.alone = self.alone + more
            if not more:
                found = self._backward(graph, value, self.alone)
                directions = [task.directions[p] for p in self.alone] if task.directions else None
                norms, products = statistics_of(found, self.alone, directions)
                self._keep_alone(
                    norms[None] / task.scale**2,
                    None if products is None else products[None] / task.scale,
                )
            return not more
        finally:
            recorder.release()

    def _keep_alone(self, norms: Tensor, products: Tensor | None) -> None:
        columns = [self.column[p] for p in self.alone]
        self.norms[self.rows, columns] = norms.to(self.norms)
        if products is not None:
            self.products[self.rows, columns] = products.to(self.norms)
        self.taken.update(dict.fromkeys(self.alone, Taken("", ALONE)))

    def _backward(
        self, graph: Ownership, value: Tensor, alone: Sequence[Tensor] = ()
    ) -> Sequence[Tensor | None]:
        """Run a backward pass; return the gradients of some parameters by autograd."""
        self.entries = graph.entries
        apart = frozenset(graph.shared)
        wanted = [p for p in self.task.parameters if p not in apart]
        found = groups(graph.entries, wanted)
        self.group = {entry: group for group in found for entry in group.entries}
        ends = [*graph.edges, *alone]
        try:
            if not ends:
                return ()
            gradients = torch.autograd.grad(value * self.task.scale, ends, allow_unused=True)
            for group in found:  # whose entries the backward pass did not all meet
                self._finish(group)
            return gradients[len(graph.edges) :]
        finally:
            self.entries, self.group = {}, {}

    def _reduce(self, call: Call, delta: Tensor) -> None:
        """Turn a layer's input and output gradient into statistics, during the backward pass."""
        mine = [entry for entry in call.entries if self.entries.get(entry) is call]
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
            routes = call.rule.routes(x.shape, delta.shape, self.device.type)
            forced = self.task.forced.get(mine[call.rule.large])
            route = forced if forced in routes else cheapest(routes, self.device.type)
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
            part: Part
            if entry.role in formed:
                part = formed[entry.role].reshape(len(delta), *shape).__getitem__
            else:
                part = partial(_formed, call.rule, x, delta, shape, entry.flipped)
            group.entries[entry] = part
            for parameter in group.parameters:
                self.taken[parameter] = Taken(call.rule.kind, FORMED, call.rule)
            if group.complete:
                self._finish(group)

    def _finish(self, group: Group) -> None:
        """Reduce the gradients of a group of parameters."""
        for block, gradients in group.gradients(len(self.norms[self.rows])):
            for parameter, gradient in zip(group.parameters, gradients):
                self._keep(parameter, reduced(gradient, self.task.directions.get(parameter)), block)
        group.entries.clear()

    def _keep(self, parameter: Tensor, measured: Measured, block: slice) -> None:
        column, scale = self.column[parameter], self.task.scale
        norms = self.norms[self.rows, column]
        norms[block] = measured.norms.to(norms) / scale**2
        if measured.products is not None:
            self.products[self.rows, column][block] = measured.products.to(norms) / scale


def _formed(
    rule: Rule, x: Tensor, delta: Tensor, shape: torch.Size, flipped: bool, block: slice
) -> Tensor:
    """Form the gradients of a large parameter for a block of images."""
    found = rule.formed(x[block], delta[block], shape)
    return found.transpose(1, 2) if flipped else found
