"""The check that a batch is what it seems: one image alone is the witness."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from gradbench.gradients import kept
from gradbench.gradients.graph import ownership
from gradbench.gradients.guard import check_outputs, close
from gradbench.gradients.layout import Layout, candidates, first_image, sample
from gradbench.gradients.path import Path
from gradbench.gradients.recorder import Call, Recorder
from gradbench.gradients.single import compared, forward_alone
from gradbench.gradients.state import same_attributes
from gradbench.gradients.statistics import refuse_batch_statistics
from gradbench.gradients.unseen import refuse_unseen, refuse_without_graph


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


_PLAIN = (int, float, str, tuple, type(None))


class Witness:
    """Says where the images of a batch lie in a layer's tensors, from a pass of one image alone.

    A first dimension of length B may be something else (tokens first, say). The values of the one
    image tell which layout is the right one.

    What was found is used again for the same network (`signature`) and batches of a size that was
    seen, as long as the forward pass takes the same path: two more passes of one image in every
    call cost a twentieth of a step of 64 images, the path about a two-hundredth.

    Args:
        model: the network.
        image: the first image of a batch, (1, ...).
        parameters: the asked parameters.
        held: the tensors that the network holds.

    Raises:
        GradbenchError: for outputs without a graph, batch statistics, parameters that act by what
            the network keeps of them.
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
        self.paths: dict[int, Path] = {}
        self.idle: set[Tensor] = set()
        self.signature: tuple = ()
        self.verdicts: set[tuple] = set()
        kept.use(None, model)
        forward = partial(forward_alone, model)
        with same_attributes(model):
            output = self._look(model, image)
            self.way = kept.find_way(forward_alone, model, image, parameters, output)
            if self.way is not None:
                output = self._look(model, image)
            if not output.requires_grad:
                refuse_without_graph(forward, model, image)
        self.output = output.detach()

    def _look(self, model: nn.Module, image: Tensor) -> Tensor:
        self.alone: dict[frozenset[Tensor], list[tuple[torch.Size, Tensor]]] = {}
        recorder = Recorder(self.held, self.parameters, self._keep)
        try:
            with recorder:
                output = forward_alone(model, image)
        finally:  # also where one image is too few for statistics
            if recorder.normalised:
                refuse_batch_statistics(partial(forward_alone, model), image)
        self.moves = list(recorder.moves)
        recorder.release()
        check_outputs(output, image, model)
        return output

    def _keep(self, call: Call, shown: Tensor) -> None:
        seen = (shown.shape, sample(shown).clone())
        self.alone.setdefault(call.parameters, []).append(seen)

    def judge(self, call: Call, shown: Tensor) -> None:
        """Set the layout of a call.

        Values are compared in the batch whose first image was seen alone. Later ones, of whatever
        size, must have a layout of the same kind.

        Args:
            call: a call of a batch.
            shown: the tensor of it to look at.
        """
        if self.images == 1:  # all of it belongs to the one image
            only = Layout() if len(shown) == 1 else Layout(None)
            found = {only: shown.shape} if call.rule.takes(only) else {}
        else:
            found = {
                layout: shape
                for shape, values in self.alone.get(call.parameters, ())
                for layout in candidates(shown.shape, shape, self.images)
                if call.rule.takes(layout)
                and self._fits(shown, layout, values, (call.parameters, shape, layout))
            }
        if len(found) == 1:  # values that fit two layouts tell neither
            call.layout, shape = found.popitem()
            self.verdicts.add((call.parameters, shape, call.layout))
        else:
            call.x = None

    def _fits(self, shown: Tensor, layout: Layout, values: Tensor, seen: tuple) -> bool:
        if self.first:
            return close(sample(first_image(shown, layout)), values)
        return seen in self.verdicts

    def strays(self, path: Path) -> bool:
        """Whether a batch's pass took another path than one of its size before."""
        known = self.paths.get(self.images)
        return known is not None and known.steps != path.steps

    def compare(self, model: nn.Module, images: Tensor, outputs: Tensor, path: Path) -> None:
        """Compare first and last image of a batch with themselves alone, once for every path.

        Raises:
            GradbenchError: when the network mixes images.
        """
        known = self.paths.get(self.images)
        if self.first:
            compared(self.output, outputs[:1])
        if self.images > 1 and (known is None or known.values != path.values):
            # A loss may read what the pass of the batch left in the network.
            with torch.no_grad(), same_attributes(model):
                compared(forward_alone(model, images[-1:]), outputs[-1:])
                if known is not None:
                    compared(forward_alone(model, images[:1]), outputs[:1])
        self.paths[self.images] = path
        self.first = False
        self.alone = {p: [(shape, None) for shape, _ in seen] for p, seen in self.alone.items()}

    def check_unused(
        self,
        model: nn.Module,
        images: Tensor,
        outputs: Tensor,
        unused: Sequence[Tensor],
        calls: Sequence[Call],
    ) -> None:
        """Look, once, whether parameters that do not act on the loss act without autograd.

        Raises:
            GradbenchError: naming them.
        """
        left = set(unused) - self.idle
        if not left:
            return
        # those that the outputs have in their graph do not act on this loss, say
        hidden = left - ownership(outputs, calls, self.parameters).acting
        forward = partial(forward_alone, model)
        with same_attributes(model):
            if not outputs.requires_grad:
                refuse_without_graph(forward, model, images)
            if hidden:
                refuse_unseen(forward, model, [p for p in unused if p in hidden], images)
        self.idle |= left

    def moves_images(self, moves: list[tuple[int, ...]]) -> bool:
        """Whether a batch's pass reordered or picked images: lengths differ from one image's."""
        return self.images > 1 and moves != self.moves
