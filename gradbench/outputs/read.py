"""Reads outputs off f for batches of images, in one pass that they share.

What the class of a user's own output gives is looked at, and a fault in it leaves out this output
alone: it is one sentence, for the detectors that read it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from gradbench.backbones.backbone import Backbone
from gradbench.data.imageset import ImageSet, to_float
from gradbench.errors import Faulty, GradbenchError
from gradbench.gradients.memory import in_chunks
from gradbench.outputs.base import BatchContext, Output
from gradbench.outputs.catalogue import as_outputs
from gradbench.support.external import external_call, seed_process

BATCH = 64
"""Images a pass. Fixed, since the last bits of a product may depend on it."""
SAME = 1e-4
"""Share of the largest value by which that of an image may differ beside other images."""
ROUGHLY = 0.05
"""Likewise where the number of images differs too: other kernels round in another way."""


@dataclass(frozen=True)
class ComputedOutputs:
    """Outputs of some images, (n, ...) float32 on the CPU by name.

    `faults` says why outputs of the user's own are not among them; `halvings` counts the passes
    that were halved because the device's memory did not suffice.
    """

    values: dict[str, Tensor]
    halvings: int = 0
    faults: dict[str, str] = field(default_factory=dict)


def compute_outputs(
    backbone: Backbone,
    images: ImageSet,
    rows: slice,
    outputs: Iterable[str | Output],
    advance: Callable[[int], None] | None = None,
) -> ComputedOutputs:
    """Compute outputs of some rows of a set in passes of 64, without the store.

    `outputs` may be names of gradbench's own; `advance` gets the number of images of every pass.

    Raises:
        GradbenchError: if one of gradbench's outputs is not finite.
    """
    outputs = as_outputs(backbone, outputs)
    parts: dict[str, list[Tensor]] = {output.name: [] for output in outputs}
    halvings, faults = 0, {}
    for start in range(rows.start, rows.stop, BATCH):
        left = [output for output in outputs if output.name not in faults]
        pixels = to_float(images.images[start : min(start + BATCH, rows.stop)])
        read = partial(_read_batch, backbone, outputs=left, checks=start == rows.start)
        chunks, halved = in_chunks(read, pixels, BATCH)
        halvings += halved + sum(chunk.halvings for chunk in chunks)
        for chunk in chunks:
            faults |= chunk.faults
            for name, values in chunk.values.items():
                parts[name].append(values)
        if advance:
            advance(len(pixels))
    users_own = {output.name for output in outputs if output.is_users_own}
    values = {}
    for name in [name for name in parts if name not in faults]:
        try:
            values[name] = torch.cat(parts[name]).contiguous()
        except RuntimeError:
            shapes = " and ".join(sorted({str(tuple(p.shape[1:])) for p in parts[name]}))
            faults[name] = f"output {name} gives values of shape {shapes} of an image"
            continue
        if name not in users_own and not values[name].isfinite().all():
            raise GradbenchError(
                f"{name} of {images.name} is not finite: the network's weights or the images "
                "hold values that overflow in float32"
            )
    return ComputedOutputs(values, halvings, faults)


def read_outputs(
    backbone: Backbone, images: Tensor, outputs: Iterable[str | Output]
) -> dict[str, Tensor]:
    """Read outputs of images (B, C, H, W) in [0, 1], (B, ...) float32 on the CPU by name.

    They share one forward pass, and take one more for each further label or loss.

    Raises:
        GradbenchError: see `BatchContext`.
        Faulty: for a fault in an output of the user's own.
    """
    read = _read_batch(backbone, images, as_outputs(backbone, outputs))
    for fault in read.faults.values():
        raise Faulty(fault)
    return read.values


def _read_batch(
    backbone: Backbone, images: Tensor, outputs: list[Output], checks: bool = False
) -> ComputedOutputs:
    images = images.to(backbone.device)
    # gradbench's come first, so that nobody else's needs decide which pass is shared
    ordered = sorted(outputs, key=lambda output: output.is_users_own)
    context = BatchContext(backbone, images, [output.needs for output in ordered])
    values, faults = {}, {}
    for output in ordered:
        if not output.is_users_own:
            values[output.name] = output.read(context).detach().float().cpu()
            continue
        try:
            values[output.name] = _read_users_own(output, context)
            if checks and len(images) > 1:
                _check_alone(output, backbone, images, values[output.name])
        except Faulty as fault:
            if isinstance(fault.__cause__, torch.OutOfMemoryError):
                raise fault.__cause__ from None  # fewer images may fit
            faults[output.name] = str(fault)
            values.pop(output.name, None)
    in_order = {output.name: values[output.name] for output in outputs if output.name in values}
    return ComputedOutputs(in_order, context.halvings, faults)


def _read_users_own(output: Output, context: BatchContext, seed: int | None = None) -> Tensor:
    """Return what a user's own output reads, having looked at it; it gets copies."""
    member = f"output {output.name}: {type(output).__qualname__}.read"
    before = _state_of(context.backbone)
    context.lends_copies = True
    try:
        with external_call(member):
            if seed is not None:
                seed_process(seed)
            values = output.read(context)
    finally:
        context.lends_copies = False
        if _state_of(context.backbone) != before:
            raise GradbenchError(
                f"{member} changes the network (its weights, or its mode): it must leave it as it "
                "is, work on a copy.deepcopy()"
            )
    count = len(context.images)
    if not torch.is_tensor(values) or values.is_complex() or values.layout is not torch.strided:
        kind = f"a tensor of {values.dtype}" if torch.is_tensor(values) else repr(values)[:60]
        raise Faulty(f"{member} gives {kind}: a tensor ({count}, ...) of numbers is due")
    if not values.dim() or len(values) != count or not values.numel():
        raise Faulty(
            f"{member} gives a tensor {tuple(values.shape)} for {count} images: "
            f"({count}, ...) is due, with at least one number of each"
        )
    values = values.detach().float().cpu().clone()
    if not values.isfinite().all():
        bad = int((~values.reshape(count, -1).isfinite()).any(1).sum())
        raise Faulty(f"{member} gives {bad} of {count} images a value that is not finite")
    return values


def _state_of(backbone: Backbone) -> tuple:
    """Return what changes when somebody writes to the weights of a network or sets its mode."""
    versions = tuple(p._version for p in backbone.parameters() if not p.is_inference())
    return versions, tuple(module.training for module in backbone.modules())


def _check_alone(output: Output, backbone: Backbone, images: Tensor, whole: Tensor) -> None:
    """Refuse values that are no function of the image alone.

    An image has the same values twice, beside other images, beside copies of itself, and alone.
    """
    member = f"output {output.name}: {type(output).__qualname__}.read"
    rows = [len(whole) - 1, len(whole) // 2, 0]

    def read(chosen: list[int], seed: int | None = None) -> Tensor:
        context = BatchContext(backbone, images[chosen], [output.needs])
        return _read_users_own(output, context, seed)

    few, again = read(rows), read(rows, seed=len(whole))
    copies, single = read(rows[:1] * 3), read(rows[:1])
    if few.shape[1:] != whole.shape[1:]:
        raise Faulty(
            f"{member} gives values of shape {tuple(whole.shape[1:])} and {tuple(few.shape[1:])} "
            f"of an image beside {len(whole) - 1} and beside 2 others: one shape is due"
        )
    largest = float(whole.abs().max())
    if not torch.allclose(few, again, rtol=0, atol=SAME * largest):
        raise Faulty(
            f"{member} gives the same images other values the second time: an output draws no "
            "random numbers, and keeps nothing of images that were read"
        )
    for beside, other, slack in (
        (few[0], copies[0], SAME),
        (whole[-1], few[0], ROUGHLY),
        (whole[-1], single[0], ROUGHLY),
    ):
        gap = float((beside - other).abs().max())
        if gap > slack * largest:
            raise Faulty(
                f"{member} gives an image other values beside other images (by {gap:.3g}): "
                "they may depend on the image alone"
            )
