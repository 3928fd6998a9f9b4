"""Everything that is timed: the ordinary step, the engine, and the other ways to the same norms.

A contender is made once (`prepare`) and then run as often as wanted. One run handles a whole batch
(the loop a part of it), leaves nothing behind, and returns squared norms where it has them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from gradbench.bench.networks import numerics
from gradbench.bench.settings import Settings
from gradbench.gradients import as_loss, squared_norms

MICRO_BATCH = 8
"""Images at a time for `vmap`, and images of the batch on which the loop is measured."""
LOSS = as_loss("bce", "ones")
Run = Callable[[], Tensor | None]


@dataclass
class Contender:
    """One way to work on a batch.

    Args:
        name: as in the table.
        run: does the work once and returns squared norms (images, d), or None.
        images: how many images a run handles.
        note: what is worth knowing about its numbers; a run may change it.
    """

    name: str
    run: Run
    images: int
    note: str = ""


class Unavailable(Exception):
    """A contender that cannot take part; the text says why."""


def prepare(name: str, model: nn.Module, images: Tensor, settings: Settings) -> Contender:
    """Make a contender; its first run may still show that it cannot handle the network.

    Args:
        name: one of `CONTENDERS`.
        model: in evaluation mode; is left as it is.
        images: (B, C, H, W) on the model's device.
        settings: what precision to compute in.

    Raises:
        Unavailable: if its library is missing or cannot handle the network.
    """
    contender = CONTENDERS[name](model, images, settings)
    if name == "engine":  # brings its own numerics
        return contender
    bare = contender.run

    def run() -> Tensor | None:
        with numerics(settings):
            return bare()

    contender.run = run
    return contender


def _forward(model: nn.Module, images: Tensor, settings: Settings) -> Contender:
    def run() -> None:
        with torch.no_grad():
            model(images)

    return Contender("forward", run, len(images), "contiguous")


def _step(name: str, memory_format: torch.memory_format):
    def make(model: nn.Module, images: Tensor, settings: Settings) -> Contender:
        copy = deepcopy(model).to(memory_format=memory_format)
        pixels = images.to(memory_format=memory_format)
        parameters = list(copy.parameters())

        def run() -> None:
            losses = LOSS(copy(pixels))
            torch.autograd.grad(losses.sum(), parameters, allow_unused=True)

        return Contender(name, run, len(images))

    return make


def _engine(model: nn.Module, images: Tensor, settings: Settings) -> Contender:
    # float32 and float64 are the model's own
    precision = None if settings.precision in ("float32", "float64") else settings.precision

    def run() -> Tensor:
        result = squared_norms(model, images, precision=precision)
        halved = f", halved {result.halvings}x for memory" if result.halvings else ""
        contender.note = f"chunk {result.chunk}{halved}"
        return result.values

    contender = Contender("engine", run, len(images))
    return contender


def _vmap(model: nn.Module, images: Tensor, settings: Settings) -> Contender:
    def run() -> Tensor:
        return vmap_norms(model, images, MICRO_BATCH)

    return Contender("vmap", run, len(images), f"micro-batches of {MICRO_BATCH}")


def vmap_norms(model: nn.Module, images: Tensor, micro_batch: int) -> Tensor:
    """Return squared norms by `vmap(grad)` over a functional call of the network, (B, d).

    Every gradient of a micro-batch exists at once; one as large as the batch is what libraries do.
    Networks that write in place, branch on values or have recurrent layers raise a RuntimeError.
    """
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    buffers = {name: b.detach() for name, b in model.named_buffers()}

    def loss_of_one(parameters: dict[str, Tensor], image: Tensor) -> Tensor:
        return LOSS(functional_call(model, (parameters, buffers), (image.unsqueeze(0),))).sum()

    def norms_of_one(image: Tensor) -> Tensor:
        gradients = grad(loss_of_one)(parameters, image)
        return torch.stack([_square(gradients[name]) for name in parameters])

    norms = vmap(norms_of_one, randomness="error")
    return torch.cat([norms(piece) for piece in images.split(micro_batch)])


def _loop(model: nn.Module, images: Tensor, settings: Settings) -> Contender:
    part = images[:MICRO_BATCH]
    note = f"measured on {len(part)} images" if len(part) < len(images) else ""
    return Contender("loop", lambda: loop_norms(model, part), len(part), note)


def loop_norms(model: nn.Module, images: Tensor) -> Tensor:
    """Return squared norms by one ordinary backward pass per image, (B, d)."""
    parameters, rows = list(model.parameters()), []
    for image in images.split(1):
        found = torch.autograd.grad(
            LOSS(model(image.clone())).sum(), parameters, materialize_grads=True, allow_unused=True
        )
        rows.append(torch.stack([_square(gradient) for gradient in found]))
    return torch.stack(rows)


def _square(gradient: Tensor) -> Tensor:
    return gradient.to(torch.promote_types(gradient.dtype, torch.float32)).square().sum()


def _backpack(model: nn.Module, images: Tensor, settings: Settings) -> Contender:
    try:
        from backpack import backpack, extend
        from backpack.extensions import BatchL2Grad
    except ImportError as fault:
        raise Unavailable(_missing(fault)) from fault

    with warnings.catch_warnings(action="ignore"):
        try:
            # rewrites the network's graph where it can: in-place additions would break the hooks
            extended, note = extend(deepcopy(model), use_converter=True), "rewritten"
        except Exception:  # it knows few operations, and fails in as many ways
            extended, note = extend(_without_in_place(deepcopy(model))), "as it stands"
    named = dict(extended.named_parameters())

    def run() -> Tensor:
        with warnings.catch_warnings(action="ignore"), backpack(BatchL2Grad()):
            LOSS(extended(images)).sum().backward()
        without = [name for name, p in named.items() if not hasattr(p, "batch_l2")]
        norms = [p.__dict__.pop("batch_l2") for p in named.values() if hasattr(p, "batch_l2")]
        extended.zero_grad(set_to_none=True)
        if without:
            raise Unavailable(
                f"no norms for {len(without)} of {len(named)} tensors, {without[0]} among them"
            )
        return torch.stack(norms, 1)

    return Contender("backpack", run, len(images), f"network {note}")


def _without_in_place(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if getattr(module, "inplace", False):
            module.inplace = False
    return model


def _pytorch_ood(model: nn.Module, images: Tensor, settings: Settings) -> Contender:
    try:
        from pytorch_ood.detector import GradUncertainty
    except ImportError as fault:
        raise Unavailable(_missing(fault)) from fault

    detector = GradUncertainty(model)

    def run() -> None:
        detector.predict(images)  # one score per image: the sum of all squared norms

    note = "BCE of the softmax; gives the sum of the norms alone"
    return Contender("pytorch_ood", run, len(images), note)


def _missing(fault: ImportError) -> str:
    """Tell a library that is not there from one that is there and broken."""
    if isinstance(fault, ModuleNotFoundError):
        return "not installed: pip install 'gradbench[bench]'"
    return f"cannot be imported: {fault}"


CONTENDERS: dict[str, Callable[[nn.Module, Tensor, Settings], Contender]] = {
    "forward": _forward,
    "step": _step("step", torch.contiguous_format),
    "step_channels_last": _step("step_channels_last", torch.channels_last),
    "engine": _engine,
    "vmap": _vmap,
    "backpack": _backpack,
    "pytorch_ood": _pytorch_ood,
    "loop": _loop,
}
STEPS = ("step", "step_channels_last")
"""The ordinary step in both memory layouts: the faster one is what the others are held against."""
