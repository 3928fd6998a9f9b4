"""Statistics of every parameter's per-image gradient from one batched pass.

In evaluation mode the loss J_b depends on image b alone, so one backward pass of sum_b J_b gives at
every layer the gradient delta_b with respect to its output. The statistics of the weight gradient
follow from the layer's input and delta_b (the rules) the moment delta_b arrives; ordinary weight
gradients are never computed, and what a layer kept is dropped at once. Where the rules do not
account for a parameter completely (graph.py), every image has a pass of its own, which gives the
others' gradients as well: rules for those beside it would cost more than they save, on networks for
images of 64 pixels 1.1 to 3.3 times as much as the loop over images alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from gradbench.errors import GradbenchError
from gradbench.gradients import guard, kept
from gradbench.gradients.door import taking
from gradbench.gradients.graph import ownership
from gradbench.gradients.memory import out_of_memory
from gradbench.gradients.recorder import Recorder
from gradbench.gradients.reduction import Reduction
from gradbench.gradients.single import compared, statistics_alone, try_channels_last
from gradbench.gradients.sources import held_by
from gradbench.gradients.state import (
    BACKWARD_HOOKS,
    FORWARD_HOOKS,
    callers_hooks,
    without_callers_hooks,
)
from gradbench.gradients.task import ALONE, UNUSED, Found, Taken, Task
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
        self.channels_last = task.channels_last
        self.witness: Witness | None = None
        # what needs a pass for every image, by the caller's wish or as far as it is known
        self.forced = [p for p in task.parameters if task.forced.get(p) == ALONE]
        self.alone: list[Tensor] = []
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
        self.reduction = Reduction(self.task, len(images), self.device, self.taken)
        try:
            outputs = self._recorded(images)
            acts = self._together(images, outputs)
            outputs = outputs.detach()
            parameters = self.task.parameters if self.alone else self.forced
            if parameters and acts:
                self.recorder.release()
                found = statistics_alone(self.task, images, outputs, parameters)
                self.reduction.keep_alone(parameters, {*self.alone, *self.forced}, *found)
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
        return Found(self.reduction.norms, self.reduction.products, outputs)

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
        judge, reduce = self.witness.judge, self.reduction.reduce
        self.recorder = Recorder(self.held, self.task.parameters, judge, reduce)
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
        graph = ownership(losses, self.recorder.calls, self.task.parameters, self.forced)
        unused = [p for p in self.task.parameters if p not in graph.acting]
        self.witness.check_unused(self.task.model, images, outputs, unused, self.recorder.calls)
        if not losses.requires_grad:
            return False
        if self.witness.moves_images(self.recorder.moves):
            self.alone = list(self.task.parameters)
        if not self.alone:
            self.alone = graph.shared
        if not self.alone:
            self.reduction.backward(graph, losses.sum())
        return True
