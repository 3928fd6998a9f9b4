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

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from gradbench.errors import GradbenchError
from gradbench.gradients import cached_tensors
from gradbench.gradients.arguments import naming_rejected_images
from gradbench.gradients.consistency import BatchCheck, signature
from gradbench.gradients.expressions import held_by
from gradbench.gradients.graph import account
from gradbench.gradients.memory import in_chunks, out_of_memory
from gradbench.gradients.one_image import same_output, try_channels_last
from gradbench.gradients.precision import arithmetic
from gradbench.gradients.recorder import Recorder
from gradbench.gradients.reduction import Reduction
from gradbench.gradients.refusals import check_outputs, per_image_loss, refuse_randomness
from gradbench.gradients.state import (
    BACKWARD_HOOKS,
    FORWARD_HOOKS,
    only_these_require_grad,
    same_buffers,
    suspended_hooks,
)
from gradbench.gradients.task import ALONE, UNUSED, Route, Statistics, Task

# network -> size of a batch -> its check; forgotten with the network
_CHECKS: WeakKeyDictionary[nn.Module, dict[int, BatchCheck]] = WeakKeyDictionary()
SIZES = 8
"""Sizes of batches whose checks are remembered for a network."""


@contextmanager
def differentiating(task: Task) -> Iterator[None]:
    """Differentiate the task's parameters alone, in its precision, in any mode of the caller."""
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        only_these_require_grad(task.model, list(task.parameters.values())),
        same_buffers(task.model),
        arithmetic(task.precision, task.device),
    ):
        yield


def compute(task: Task) -> tuple[Statistics, dict[str, Route], int]:
    """Return the statistics of all images, each parameter's route, how often a chunk was halved."""
    parameters = list(task.parameters.values())
    engine = Engine(task)
    with differentiating(task):
        parts, halvings = in_chunks(engine, task.images, task.chunk)
    if not all(part.norms.isfinite().all() for part in parts):
        raise GradbenchError(
            "the squared gradient norms are not all finite: the loss or the weights are too large "
            f"for precision {task.precision or parameters[0].dtype}"
        )
    columns = zip(*((part.norms, part.products, part.outputs) for part in parts))
    whole = (None if c[0] is None else torch.cat(c).to(task.images.device) for c in columns)
    routes = {name: engine.routes[p] for name, p in task.parameters.items()}
    return Statistics(*whole), routes, halvings


class Engine:
    """Forward and backward pass of one chunk after the other."""

    def __init__(self, task: Task):
        self.task, self.parameters = task, list(task.parameters.values())
        self.held = held_by(task.model)
        self.channels_last = task.channels_last
        self.check: BatchCheck | None = None
        # what needs a pass for every image, as far as it is known yet
        self.alone: list[Tensor] = list(self.parameters) if task.route == ALONE else []
        self.routes: dict[Tensor, Route] = dict.fromkeys(self.parameters, Route("", UNUSED))

    def __call__(self, images: Tensor) -> Statistics:
        """Return the statistics of these images."""
        images = images.to(self.task.device)
        # Autograd may not keep the tensors of inference mode, hence the copy of those.
        images = images.clone() if images.is_inference() else images
        # The first chunk is checked against its first image; later ones by the path that they take.
        if self.check is None:
            self.check = self._first_check(images)
        self.check.images = len(images)
        if self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        self.reduction = Reduction(self.task, len(images), self.routes)
        try:
            outputs = self._checked_forward(images)
            acts = self._backward(images, outputs)
            outputs = outputs.detach()
            if self.alone and acts:
                self.recorder.release()  # the batch's activations, before passes that need memory
                self.reduction.one_at_a_time(images, outputs, self.alone)
        except RuntimeError as fault:
            # PyTorch's words for a graph that an earlier pass has used: a cache out of sight, that
            # cached_tensors.py could not find.
            if "backward through the graph a second time" not in str(fault):
                raise
            raise GradbenchError(
                "the network keeps tensors made of its parameters from one forward pass to the "
                "next, with a graph that one backward pass uses up: let it compute them in every "
                "pass"
            ) from fault
        finally:
            self.recorder.release()
        return Statistics(self.reduction.norms, self.reduction.products, outputs)

    def _first_check(self, images: Tensor, afresh: bool = False) -> BatchCheck:
        """Return the check of the first batch: a remembered one, or one by its first image."""
        model, wanted = self.task.model, self.task.channels_last
        autocast = torch.is_autocast_enabled(self.task.device.type)
        # The requested parameters require a gradient, which decides the graph of a pass.
        now = signature(model, images, (autocast, wanted, *map(id, self.parameters)))
        known = _CHECKS.get(model, {}).get(len(images))
        if known is not None and known.signature == now and not afresh:
            self.channels_last = known.channels_last
            cached_tensors.set_recomputing(known.recomputing, model)
            return known
        with refuse_randomness(self.task.device), naming_rejected_images(model, images):
            make = partial(BatchCheck, model, parameters=self.parameters, held=self.held)
            check, self.channels_last = try_channels_last(make, images[:1], wanted)
        check.signature = now
        # The network has changed: what was seen of it for other sizes holds no longer.
        former = _CHECKS.get(model, {}).items()
        _CHECKS[model] = {size: c for size, c in former if c.signature == now}
        return check

    def _checked_forward(self, images: Tensor) -> Tensor:
        """Run the network on a chunk, with a check that knows the path taken."""
        model = self.task.model
        # Hooks of the backward pass are suspended always: some routes miss them.
        outputs = self._forward(images, BACKWARD_HOOKS)
        if self.check.took_other_path(self.recorder.path):
            # Something else is computed: look at one image again. The caller's hooks have seen
            # these images, and may be what changed.
            self.recorder.release()
            self.check = self._first_check(images, afresh=True)
            self.check.images, hooked = len(images), outputs.detach()
            outputs = self._forward(images, (*FORWARD_HOOKS, *BACKWARD_HOOKS))
            same_output(outputs.detach(), hooked)
        self.check.compare_images(model, images, outputs.detach(), self.recorder.path)
        self.check.channels_last = self.channels_last
        checks = _CHECKS.setdefault(model, {})
        checks[len(images)] = self.check
        while len(checks) > SIZES:
            del checks[next(iter(checks))]
        return outputs

    def _forward(self, images: Tensor, suspended: Sequence[str]) -> Tensor:
        """Run the network on a chunk under a recorder, with these hooks of the caller suspended."""
        model = self.task.model
        self.recorder = Recorder(
            self.held, self.parameters, self.check.set_layout, self.reduction.reduce
        )
        pixels = self.recorder.path.start(images.clone())  # which networks may change in place
        with (
            refuse_randomness(self.task.device),
            suspended_hooks(model, suspended),
            cached_tensors.as_written(model),
        ):
            try:
                with self.recorder:
                    outputs = model(pixels)
            except RuntimeError as fault:
                if not (self.channels_last and self.check.first) or out_of_memory(fault):
                    raise
                # One image can be taken for contiguous where a batch with channels last is not.
                self.channels_last = False
                self.recorder.release()
                return self._forward(images.contiguous(), suspended)
        check_outputs(outputs, images, model)
        return outputs

    def _backward(self, images: Tensor, outputs: Tensor) -> bool:
        """Run the backward pass of a chunk, unless its images need passes of their own.

        Returns whether any parameter acts on the loss.
        """
        losses = per_image_loss(self.task.loss, images, outputs, self.task.known_loss)
        accounting = account(losses, self.recorder.calls, self.parameters)
        unused = [p for p in self.parameters if p not in accounting.acting]
        self.check.check_unused(self.task.model, images, outputs, unused, self.recorder.calls)
        if not losses.requires_grad:
            return False
        # Which row of a layer belongs to which image is then unknown, for all layers behind it.
        if self.check.reorders_images(self.recorder.reorderings):
            self.alone = list(self.parameters)
        # Once a parameter needs the loop, later chunks take it too: it gives all the others.
        if not self.alone:
            self.alone = accounting.unaccounted
        if not self.alone:
            self.reduction.backward(accounting, losses.sum())
        return True
