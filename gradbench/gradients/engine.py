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

from functools import partial
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from gradbench.gradients import guard
from gradbench.gradients.graph import ownership
from gradbench.gradients.memory import out_of_memory
from gradbench.gradients.recorder import Recorder
from gradbench.gradients.reduction import Reduction
from gradbench.gradients.single import (
    Witness,
    signature,
    statistics_alone,
    try_channels_last,
)
from gradbench.gradients.sources import held_by
from gradbench.gradients.state import BACKWARD_HOOKS, without_callers_hooks
from gradbench.gradients.task import ALONE, UNUSED, Found, Taken, Task

# network -> its witness, and whether it takes channels last; forgotten with the network
_SEEN: WeakKeyDictionary[nn.Module, tuple[Witness, bool]] = WeakKeyDictionary()


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
        images = images.detach().to(self.device)
        images = images.clone() if images.is_inference() else images
        if self.witness is None:
            self.witness = self._see_first(images)
        self.witness.images = len(images)
        if self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        self.reduction = Reduction(self.task, len(images), self.device, self.taken)
        recorder = self._recorder()
        try:
            outputs = self._forward(recorder, images)
            self.witness.compare(self.task.model, images, outputs.detach())
            _SEEN[self.task.model] = (self.witness, self.channels_last)
            acts = self._together(recorder, images, outputs)
        finally:
            recorder.release()
        outputs = outputs.detach()
        parameters = self.task.parameters if self.alone else self.forced
        if parameters and acts:
            found = statistics_alone(self.task, images, outputs, parameters)
            self.reduction.keep_alone(parameters, {*self.alone, *self.forced}, *found)
        return Found(self.reduction.norms, self.reduction.products, outputs)

    def _recorder(self) -> Recorder:
        judge, reduce = self.witness.judge, self.reduction.reduce
        return Recorder(self.held, self.task.parameters, judge, reduce)

    def _forward(self, recorder: Recorder, images: Tensor) -> Tensor:
        """Run the network on a chunk under the recorder."""
        # Of the caller's hooks those of the backward pass are suspended: some routes miss them.
        with (
            guard.refuse_randomness(self.device),
            without_callers_hooks(self.task.model, BACKWARD_HOOKS),
        ):
            try:
                with recorder:
                    outputs = self.task.model(images.clone())  # which networks may change in place
            except RuntimeError as fault:
                if not (self.channels_last and self.witness.first) or out_of_memory(fault):
                    raise
                self.channels_last = False
                recorder.restart()
                with recorder:
                    outputs = self.task.model(images.contiguous())
        guard.check_outputs(outputs, len(images))
        return outputs

    def _see_first(self, images: Tensor) -> Witness:
        """Look at the first image alone, and find out whether channels may come last."""
        model, wanted = self.task.model, self.task.channels_last
        how = (torch.is_autocast_enabled(self.device.type), wanted, *map(id, self.task.parameters))
        now = signature(model, images, how)
        known = _SEEN.get(model)
        if known is not None and known[0].signature == now and known[0].knows(len(images)):
            witness, self.channels_last = known
            return witness
        with guard.refuse_randomness(self.device):
            make = partial(Witness, model, parameters=self.task.parameters, held=self.held)
            witness, self.channels_last = try_channels_last(make, images[:1], wanted)
        witness.signature = now
        return witness

    def _together(self, recorder: Recorder, images: Tensor, outputs: Tensor) -> bool:
        """Run the backward pass of a chunk, unless its images need passes of their own.

        Returns:
            Whether any parameter acts on the loss.
        """
        losses = guard.per_image_loss(self.task.loss, images, outputs, self.task.known)
        if not losses.requires_grad:
            return False
        if self.witness.moves_images(recorder.moves):
            self.alone = list(self.task.parameters)
        if not self.alone:
            graph = ownership(losses.grad_fn, recorder.calls, self.task.parameters, self.forced)
            self.alone = graph.shared
        if not self.alone:
            self.reduction.backward(graph, losses.sum())
        return True
