"""The batch-consistency check: what one image alone gives is what it gives in a batch.

Three things are taken from passes of one image alone. Where the images lie in a layer's tensors: a
first dimension of length B may be something else (tokens first, say), and the values of the one
image tell. That the network does not mix images: its first and last output are those of these
images alone. And that parameters which seem unused are unused.

Two more passes of one image in every call would cost a twentieth of a step of 64 images, so a check
holds for the same network (`signature`) and batches of a size that was seen, as long as the forward
pass takes the same path; comparing the path costs about a two-hundredth.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from gradbench.gradients import cached_tensors
from gradbench.gradients.forward_path import ForwardPath
from gradbench.gradients.graph import account
from gradbench.gradients.hidden_parameters import refuse_hidden_parameters, refuse_without_graph
from gradbench.gradients.layout import Layout, candidates, sample
from gradbench.gradients.one_image import forward_one, same_output
from gradbench.gradients.recorder import Call, Recorder
from gradbench.gradients.refusals import check_outputs, close
from gradbench.gradients.state import same_attributes

_PLAIN = (int, float, str, tuple, type(None))


def signature(model: nn.Module, image: Tensor, settings: Sequence) -> tuple:
    """Return what decides how a network computes, but for its images.

    Weights and their versions, modes, hooks, and whatever its modules hold: plain values by what
    they are, other objects by which they are.
    """
    modules = tuple(
        (
            id(module),
            type(module),
            tuple(map(len, (module._forward_hooks, module._forward_pre_hooks))),
            tuple((k, v if isinstance(v, _PLAIN) else id(v)) for k, v in vars(module).items()),
        )
        for module in model.modules()
    )
    weights = tuple((id(p), p.data_ptr(), p._version) for p in model.parameters())
    return (modules, weights, tuple(image.shape[1:]), image.dtype, image.device, tuple(settings))


class BatchCheck:
    """Checks batches of a network against passes of one image alone, the first of a batch at first.

    That pass refuses outputs without a graph, batch statistics, parameters that are cached.
    """

    def __init__(
        self,
        model: nn.Module,
        image: Tensor,
        parameters: Sequence[Tensor],
        held: Sequence[Tensor],
    ):
        self.parameters, self.held = parameters, held
        self.first, self.images = True, 0
        self.paths: dict[int, ForwardPath] = {}  # size of a batch -> path of its last pass
        self.unused: set[Tensor] = set()
        self.signature: tuple = ()
        self.channels_last = False
        # (parameters, shape for one image, layout) of the calls of the first batch
        self.layouts: set[tuple] = set()
        # What was found before might hide that the network has changed.
        cached_tensors.set_recomputing((), model)
        with same_attributes(model):
            output = self._pass_alone(model, image)
            self.recomputing = cached_tensors.find_recomputing(
                forward_one, model, image, parameters, output
            )
            if self.recomputing:
                output = self._pass_alone(model, image)
            if not output.requires_grad:
                refuse_without_graph(partial(forward_one, model), model, image)
        self.output = output.detach()

    def _pass_alone(self, model: nn.Module, image: Tensor) -> Tensor:
        # parameters -> shape and some values of every call that they enter
        self.alone: dict[frozenset[Tensor], list[tuple[torch.Size, Tensor | None]]] = {}
        recorder = Recorder(self.held, self.parameters, self._keep)
        with recorder:
            output = forward_one(model, image)
        self.reorderings = list(recorder.reorderings)
        recorder.release()
        check_outputs(output, image, model)
        return output

    def _keep(self, call: Call, example: Tensor) -> None:
        values = sample(example).clone()
        self.alone.setdefault(call.parameters, []).append((example.shape, values))

    def set_layout(self, call: Call, example: Tensor) -> None:
        """Set the layout of a call, if it is certain, by a tensor of the call.

        Values are compared in the batch whose first image was seen alone. Later ones, of whatever
        size, must have a layout of the same kind.
        """
        if self.images == 1:  # all of it belongs to the one image
            only = Layout() if len(example) == 1 else Layout(None)
            found = {only: example.shape} if call.rule.takes(only) else {}
        else:
            found = {
                layout: shape
                for shape, values in self.alone.get(call.parameters, ())
                for layout in candidates(example.shape, shape, self.images)
                if call.rule.takes(layout)
                and (
                    close(sample(layout.first_image(example)), values)
                    if self.first
                    else (call.parameters, shape, layout) in self.layouts
                )
            }
        if len(found) == 1:
            call.layout, shape = found.popitem()
            self.layouts.add((call.parameters, shape, call.layout))
        else:  # values that fit two layouts tell neither: left to the fallback
            call.x = None

    def took_other_path(self, path: ForwardPath) -> bool:
        """Whether a batch's pass took another path than one of its size before."""
        known = self.paths.get(self.images)
        return known is not None and known.steps != path.steps

    def compare_images(
        self, model: nn.Module, images: Tensor, outputs: Tensor, path: ForwardPath
    ) -> None:
        """Refuse a network that mixes images: compare first and last with themselves alone.

        Once for every path.
        """
        # The first and the last: a sum over images before, or behind, leaves one of the two alone.
        known = self.paths.get(self.images)
        if self.first:
            same_output(self.output, outputs[:1])
        if self.images > 1 and (known is None or known.values != path.values):
            # A loss may read what the pass of the batch left in the network.
            with torch.no_grad(), same_attributes(model):
                same_output(forward_one(model, images[-1:]), outputs[-1:])
                if known is not None:
                    same_output(forward_one(model, images[:1]), outputs[:1])
        self.paths[self.images] = path
        self.first = False
        # From now on layouts are compared by their kind, so the values need not be kept.
        self.alone = {p: [(shape, None) for shape, _ in calls] for p, calls in self.alone.items()}

    def check_unused(
        self,
        model: nn.Module,
        images: Tensor,
        outputs: Tensor,
        unused: Sequence[Tensor],
        calls: Sequence[Call],
    ) -> None:
        """Refuse, once, parameters that do not act on the loss but act without autograd."""
        new = set(unused) - self.unused
        if not new:
            return
        # Those that the outputs have in their graph do not act on this loss, which is no fault.
        hidden = new - account(outputs, calls, self.parameters).acting
        forward = partial(forward_one, model)
        with same_attributes(model):
            if not outputs.requires_grad:
                refuse_without_graph(forward, model, images)
            if hidden:
                refuse_hidden_parameters(forward, model, [p for p in unused if p in hidden], images)
        self.unused |= new

    def reorders_images(self, reorderings: list[tuple[int, ...]]) -> bool:
        """Whether a batch's pass reordered or picked images: lengths differ from one image's."""
        return self.images > 1 and reorderings != self.reorderings
