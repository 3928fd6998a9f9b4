"""One image at a time: the check that a batch is what it seems, and the exact fallback."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from gradbench.errors import GradbenchError
from gradbench.gradients.guard import check_outputs, close
from gradbench.gradients.layout import Layout, candidates, first_image, sample
from gradbench.gradients.memory import out_of_memory
from gradbench.gradients.recorder import Call, Recorder
from gradbench.gradients.state import without_callers_hooks
from gradbench.gradients.task import Task

Result = TypeVar("Result")


def forward_alone(model: nn.Module, image: Tensor) -> Tensor:
    """Return the output for one image (1, ...), with the caller's hooks suspended.

    Raises:
        GradbenchError: when the network does not work without a hook that was placed on it.
    """
    try:
        with without_callers_hooks(model) as suspended:
            return model(image.clone())
    except (KeyError, AttributeError, TypeError, NameError) as fault:
        if not suspended:
            raise
        raise GradbenchError(
            f"the network does not work without the hooks on {', '.join(suspended)} "
            f"({type(fault).__name__}): make what they do part of its forward"
        ) from fault


def try_channels_last(
    work: Callable[[Tensor], Result], image: Tensor, wanted: bool
) -> tuple[Result, bool]:
    """Do some work on an image laid out with channels last, or as it is where that fails.

    Returns:
        The result, and whether channels came last.
    """
    if wanted:
        try:
            return work(image.contiguous(memory_format=torch.channels_last)), True
        except RuntimeError as fault:  # `view` needs a tensor that is contiguous
            if out_of_memory(fault):
                raise
    return work(image), False


def signature(model: nn.Module, image: Tensor, settings: Sequence) -> tuple:
    """Return what decides how a network computes, but for its images.

    Weights and their versions, modes, hooks, and whatever its modules hold: plain values by what
    they are, other objects by which they are.
    """
    modules = tuple(
        (
            id(module),
            tuple(map(len, (module._forward_hooks, module._forward_pre_hooks))),
            tuple((k, v if isinstance(v, _PLAIN) else id(v)) for k, v in vars(module).items()),
        )
        for module in model.modules()
    )
    weights = tuple((id(p), p.data_ptr(), p._version) for p in model.parameters())
    return (modules, weights, tuple(image.shape[1:]), image.dtype, image.device, tuple(settings))


_PLAIN = (int, float, str, tuple, type(None))


def compared(alone: Tensor, together: Tensor) -> Tensor:
    """Return the output for one image alone, in the shape of that in a batch.

    Args:
        alone: the output for one image.
        together: the output for this image as computed in a batch, (1, ...).

    Raises:
        GradbenchError: when the two differ.
    """
    if alone.numel() == together.numel():
        alone = alone.reshape(together.shape)
        if close(alone.detach(), together):
            return alone
    raise GradbenchError(
        "the output for an image alone differs from its output in a batch: the network mixes the "
        "images of a batch, or a forward hook that was placed on it changes its output"
    )


class Witness:
    """Says where the images of a batch lie in a layer's tensors, from a pass of one image alone.

    A first dimension of length B may be something else (tokens first, say). The values of the one
    image tell which layout is the right one.

    What was found is used again for the same network (`signature`): two more passes of one image
    in every call cost a twentieth of a step of 64 images.

    Args:
        model: the network.
        image: the first image of a batch, (1, ...).
        parameters: the asked parameters.
        held: the tensors that the network holds.
    """

    def __init__(
        self,
        model: nn.Module,
        image: Tensor,
        parameters: Sequence[Tensor],
        held: Sequence[Tensor],
    ):
        self.first, self.images = True, 0
        self.sizes: set[int] = set()
        self.signature: tuple = ()
        self.alone: dict[frozenset[Tensor], list[tuple[torch.Size, Tensor]]] = {}
        self.verdicts: set[tuple] = set()
        recorder = Recorder(held, parameters, self._keep)
        with recorder:
            output = forward_alone(model, image)
        self.moves = list(recorder.moves)
        recorder.release()
        check_outputs(output, 1)
        self.output = output.detach()

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

    def compare(self, model: nn.Module, images: Tensor, outputs: Tensor) -> None:
        """Compare first and last image of a batch with themselves alone, once for every size.

        Raises:
            GradbenchError: when the network mixes images.
        """
        if self.first:
            compared(self.output, outputs[:1])
        if self.images not in self.sizes and self.images > 1:
            with torch.no_grad():
                compared(forward_alone(model, images[-1:]), outputs[-1:])
        self.sizes.add(self.images)
        self.first = False

    def knows(self, images: int) -> bool:
        """Whether a batch of so many images can be judged by what was seen of earlier ones."""
        return images == 1 or any(size > 1 for size in self.sizes)

    def moves_images(self, moves: list[tuple[int, ...]]) -> bool:
        """Whether a batch's pass reordered or picked images: lengths differ from one image's."""
        return self.images > 1 and moves != self.moves


def statistics_alone(
    task: Task, images: Tensor, outputs: Tensor, parameters: Sequence[Tensor]
) -> tuple[Tensor, Tensor | None]:
    """Squared gradient norms, and inner products, by one backward pass per image.

    Args:
        task: network, loss and directions.
        images: (B, C, H, W).
        outputs: its outputs for the batch, as a check.
        parameters: the d parameters to take gradients of; all of them require one.

    Returns:
        (B, d), and the same of inner products where directions are given.
    """
    rows, inner = [], []
    for image, together in zip(images.split(1), outputs.split(1)):
        value = task.loss(image, compared(forward_alone(task.model, image), together)).sum()
        found = torch.autograd.grad(value * task.scale, parameters, allow_unused=True)
        gradients = [torch.zeros_like(p) if g is None else g for g, p in zip(found, parameters)]
        # halves would overflow
        gradients = [g.float() if g.dtype in _HALVES else g for g in gradients]
        norms = [torch.linalg.vector_norm(g).double() for g in gradients]
        rows.append(torch.stack(norms).square())
        if task.directions:
            pairs = zip(gradients, (task.directions[p] for p in parameters))
            inner.append(torch.stack([(g * v).sum().double() for g, v in pairs]))
    norms = torch.stack(rows) / task.scale**2
    return norms, torch.stack(inner) / task.scale if inner else None


_HALVES = (torch.float16, torch.bfloat16)
