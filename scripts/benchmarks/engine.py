"""Time and memory of the gradient engine beside an ordinary training step and other ways.

    python scripts/benchmarks/engine.py
    python scripts/benchmarks/engine.py --backbone torchvision:vit_b_16 --batch 8 --image-size 224
    python scripts/benchmarks/engine.py --backbone torchvision:swin_t@64,small_cnn@8 --batch 16
    python scripts/benchmarks/engine.py --contenders engine,loop --rounds 10 --no-memory

contenders
  forward      the forward pass alone
  step         forward and backward pass with weight gradients, contiguous and channels-last:
               the faster one is what all ratios are taken to, so it always takes part
  engine       gradbench.gradients.squared_norms
  vmap         torch.func.vmap(grad) over micro-batches of 8 images
  backpack     BackPACK's BatchL2Grad (extra bench)
  pytorch_ood  pytorch-ood's GradUncertainty (extra bench)
  loop         one image at a time, measured on 8 images

All work on the same batch in one process, in turn, in rounds; ratios are taken within a round and
their median and range shown. Memory is the peak above model and images: on a processor each
contender gets a process of its own. `difference` is the largest relative difference of squared
norms from the engine's in full precision: about 1e-6 is usual in float32, up to 1e-2 for single
images with a ReLU so close to zero that rounding decides.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable
from copy import copy, deepcopy
from dataclasses import dataclass
from functools import partial
from statistics import median

import harness
import pandas as pd
import torch
from harness import Unavailable
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from gradbench.backbones.devices import find_device
from gradbench.errors import GradbenchError
from gradbench.gradients import as_loss, squared_norms
from gradbench.gradients.precision import arithmetic
from gradbench.support.memory import PeakMemory

MICRO_BATCH = 8
"""Images at a time for `vmap`, and images of the batch on which the loop is measured."""
LOSS = as_loss("bce", "ones")
STEPS = ("step", "step_channels_last")
FLOOR = 1e-6
"""Share of an image's largest squared norm below which differences count against this share."""
TOLERANCES = {"float32": 1e-3, "float64": 1e-9}
"""The limit for a quarter of the images, by precision; the others are not judged."""
KINKS = 0.1
"""The limit for every image."""
SHOWN = (
    *("contender", "images_per_second", "ratio", "ratio_low", "ratio_high", "memory_mib"),
    *("memory_ratio", "difference", "agrees", "note"),
)


@dataclass
class Contender:
    """One way to work on a batch; `run` returns squared norms (images, d), or None."""

    run: Callable[[], Tensor | None]
    images: int  # that a run handles
    note: str = ""  # worth knowing about its numbers; a run may change it


def prepare(name: str, model: nn.Module, images: Tensor, options: argparse.Namespace) -> Contender:
    """Make a contender for normalised images; its first run may show that it cannot do the network.

    Raises `Unavailable` if its library is missing or cannot handle the network.
    """
    if name == "engine":  # brings its own numerics
        return _engine(model, images, options.precision)
    contender = CONTENDERS[name](model, images)
    bare = contender.run

    def run() -> Tensor | None:
        with arithmetic(options.precision, images.device):
            return bare()

    contender.run = run
    return contender


def _engine(model: nn.Module, images: Tensor, precision: str) -> Contender:
    # float32 and float64 are the model's own
    precision = None if precision in ("float32", "float64") else precision

    def run() -> Tensor:
        result = squared_norms(model, images, precision=precision)
        halved = f", halved {result.halvings}x for memory" if result.halvings else ""
        contender.note = f"chunk {result.chunk}{halved}"
        return result.values

    contender = Contender(run, len(images))
    return contender


def _forward(model: nn.Module, images: Tensor) -> Contender:
    def run() -> None:
        with torch.no_grad():
            model(images)

    return Contender(run, len(images))


def _step(memory_format: torch.memory_format, model: nn.Module, images: Tensor) -> Contender:
    network = deepcopy(model).to(memory_format=memory_format)
    pixels = images.to(memory_format=memory_format)
    parameters = list(network.parameters())

    def run() -> None:
        loss = LOSS(network(pixels)).sum()
        torch.autograd.grad(loss, parameters, allow_unused=True)

    return Contender(run, len(images))


def _vmap(model: nn.Module, images: Tensor) -> Contender:
    note = f"micro-batches of {MICRO_BATCH}"
    return Contender(lambda: vmap_norms(model, images, MICRO_BATCH), len(images), note)


def vmap_norms(model: nn.Module, images: Tensor, micro_batch: int) -> Tensor:
    """Return squared norms (B, d) by `vmap(grad)` over a functional call of the network.

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


def _loop(model: nn.Module, images: Tensor) -> Contender:
    part = images[:MICRO_BATCH]
    note = f"measured on {len(part)} images" if len(part) < len(images) else ""
    return Contender(lambda: loop_norms(model, part), len(part), note)


def loop_norms(model: nn.Module, images: Tensor) -> Tensor:
    """Return squared norms (B, d) by one ordinary backward pass per image."""
    parameters, rows = list(model.parameters()), []
    for image in images.split(1):
        loss = LOSS(model(image.clone())).sum()
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
        rows.append(torch.stack([_square(gradient) for gradient in gradients]))
    return torch.stack(rows)


def _square(gradient: Tensor) -> Tensor:
    return gradient.to(torch.promote_types(gradient.dtype, torch.float32)).square().sum()


def _backpack(model: nn.Module, images: Tensor) -> Contender:
    try:
        from backpack import backpack, extend
        from backpack.extensions import BatchL2Grad
    except ImportError as fault:
        raise Unavailable(f"{fault}: pip install 'gradbench[bench]'") from fault

    with warnings.catch_warnings(action="ignore"):
        try:
            # rewrites the network's graph where it can: in-place additions would break the hooks
            extended, note = extend(deepcopy(model), use_converter=True), "rewritten"
        except Exception:  # it knows few operations, and fails in as many ways
            plain = deepcopy(model)
            for module in plain.modules():
                if getattr(module, "inplace", False):
                    module.inplace = False
            extended, note = extend(plain), "as it stands"
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

    return Contender(run, len(images), f"network {note}")


def _pytorch_ood(model: nn.Module, images: Tensor) -> Contender:
    try:
        from pytorch_ood.detector import GradUncertainty
    except ImportError as fault:
        raise Unavailable(f"{fault}: pip install 'gradbench[bench]'") from fault

    detector = GradUncertainty(model)

    def run() -> None:
        detector.predict(images)  # one score per image: the sum of all squared norms

    note = "BCE of the softmax; gives the sum of the norms alone"
    return Contender(run, len(images), note)


CONTENDERS: dict[str, Callable[..., Contender]] = {
    "forward": _forward,
    "step": partial(_step, torch.contiguous_format),
    "step_channels_last": partial(_step, torch.channels_last),
    "engine": _engine,
    "vmap": _vmap,
    "backpack": _backpack,
    "pytorch_ood": _pytorch_ood,
    "loop": _loop,
}


def relative_errors(norms: Tensor, exact: Tensor) -> Tensor:
    """Return |n - r| / max(r, FLOOR max_l r) of squared norms (B, d), infinite if not finite."""
    norms, exact = norms.double().cpu(), exact.double().cpu()
    floor = FLOOR * exact.amax(1, keepdim=True)
    scale = exact.maximum(floor).clamp_min(1e-300)
    return ((norms - exact).abs() / scale).nan_to_num(nan=torch.inf, posinf=torch.inf)


def agreement(norms: Tensor, exact: Tensor, precision: str) -> dict[str, float | bool]:
    """Return how far norms are from exact ones, and whether that is rounding alone.

    Rounding alone changes float32 norms by about 1e-6, but for an input of a ReLU within rounding
    of zero, whose gradient passes or not: then every tensor before it changes by up to a hundredth,
    for this image. Another memory layout is enough (DenseNet: in half of the images). So a wrong
    formula is told by its being wrong for most images.
    """
    by_image = relative_errors(norms, exact[: len(norms)]).amax(1).sort().values
    largest, quartile = float(by_image[-1]), float(by_image[(len(by_image) - 1) // 4])
    found = {"difference": largest, "difference_quartile": quartile}
    if precision in TOLERANCES:
        found["agrees"] = quartile <= TOLERANCES[precision] and largest <= KINKS
    return found


def peak_mib(name: str, options: argparse.Namespace) -> float | None:
    """Return the peak of memory in MiB that a contender adds in this process, after a small run."""
    model, images = _network_and_images(options)
    prepare(name, model, images[:2], options).run()  # code and tables that are loaded once
    contender = prepare(name, model, images, options)
    found: dict[str, float] = {}
    with PeakMemory().watch(found.update):
        contender.run()
    return found.get("peak_mib" if options.device == "cpu" else "peak_device_mib")


def _peak_in_child(name: str, options: argparse.Namespace) -> float | None:
    """Return `peak_mib` as a fresh process measures it."""
    words = ("--backbone", options.backbone, "--image-size", str(options.image_size))
    return harness.in_fresh_process(__file__, *words, "--peak-of", name)


def _network_and_images(options: argparse.Namespace) -> tuple[nn.Module, Tensor]:
    """Return the bare network and normalised images: its normalisation is no part of a step."""
    images = harness.load_images(options, max(options.batch, harness.SETTLING_IMAGES))
    backbone, pixels = harness.make_backbone(options, images)
    images = (pixels - backbone.mean) / backbone.std
    return backbone.network, images[: options.batch].contiguous()


def measure(names: list[str], options: argparse.Namespace) -> tuple[list[dict], int]:
    """Measure memory, then time, then agreement; what fails early is left out of the rest.

    Returns a row for each contender, and the number of tensors that took one image at a time.
    """
    device = find_device(options.device)
    model, images = _network_and_images(options)
    peaks: dict[str, float | None] = {}
    failed: dict[str, str] = {}
    contenders: dict[str, Contender] = {}
    for name in names:
        try:
            if options.memory and device.type == "cpu":
                peaks[name] = _peak_in_child(name, options)
            contenders[name] = prepare(name, model, images, options)
        except Exception as fault:  # what a library cannot do is a line of the table
            failed[name] = harness.failure(fault)
    runs = {name: contender.run for name, contender in contenders.items()}
    timed = harness.time_in_turn(runs, options.rounds, device)
    failed |= timed.failed
    steps = [name for name in STEPS if name in timed.seconds]
    if not steps:
        raise GradbenchError(f"the ordinary step, to which all is compared, failed: {failed}")
    reference = min(steps, key=lambda name: median(timed.seconds[name]))
    if options.memory and device.type == "cuda":
        peaks |= {name: peak_mib(name, options) for name in timed.seconds}
    exact = squared_norms(model, images)
    rows = []
    for name in names:
        row = {"contender": name, "memory_mib": peaks.get(name)}
        if name in timed.seconds:
            contender = contenders[name]
            per_image = [seconds / contender.images for seconds in timed.seconds[name]]
            step = [seconds / len(images) for seconds in timed.seconds[reference]]
            row["images_per_second"] = 1 / median(per_image)
            row |= harness.ratio_columns(per_image, step, "ratio") | {"reference": reference}
            if peaks.get(name) is not None and peaks.get(reference):
                row["memory_ratio"] = peaks[name] / peaks[reference]
            norms = timed.results[name]
            if norms is not None and (name != "engine" or options.precision not in TOLERANCES):
                row |= agreement(norms, exact.values, options.precision)
            row |= {"calls": timed.calls[name], "images": contender.images}
            row["note"] = "the reference" if name == reference else contender.note
        rows.append(row | ({"note": failed[name]} if name in failed else {}))
    rows[0]["parameters"] = sum(p.numel() for p in model.parameters())
    return rows, sum(route.startswith("one image") for route in exact.routes.values())


def main() -> None:
    """Run the benchmark, print its table and write its CSV file."""
    names = ("backbone", "width", "batch", "image_size", "precision", "rounds")
    parser = harness.options_parser(__doc__, names, rounds=5)
    parser.add_argument("--contenders", metavar="A,B,…", help="which of them (all)")
    parser.add_argument("--no-memory", dest="memory", action="store_false", help="no peak memory")
    parser.add_argument("--peak-of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    valid = [name for name in CONTENDERS if name != STEPS[1]]
    chosen = harness.chosen_names("contender", options.contenders, valid)
    harness.start(options)
    options.image_size = options.image_size or 32
    if options.peak_of:
        print(json.dumps(peak_mib(options.peak_of, options)))
        return
    names = [name for name in CONTENDERS if name in chosen or name in STEPS]
    wrong, summary = [], []
    networks = options.backbone.split(",")
    for network in networks:
        one = copy(options)
        one.backbone, _, pixels = network.strip().partition("@")
        one.image_size = harness.positive(pixels) if pixels else options.image_size
        try:
            rows, one_at_a_time = measure(names, one)
        except GradbenchError as fault:  # of several, the others are measured all the same
            if len(networks) == 1:
                raise
            wrong.append(str(fault))
            continue
        print(f"{one.backbone}, {one.batch} images of {one.image_size} pixels, {one.precision}")
        only = (f"only_{'_'.join(chosen)}",) if len(chosen) < len(valid) else ()
        harness.write_table("engine", rows, one, SHOWN, *only)
        ratios = {row["contender"]: row.get("ratio") for row in rows}
        network = {"network": one.backbone, "pixels": one.image_size}
        summary.append(network | ratios | {"tensors one at a time": one_at_a_time})
        if disagree := [row["contender"] for row in rows if row.get("agrees") is False]:
            wrong.append(f"norms of {one.backbone} disagree with the engine's: {disagree}")
    if len(summary) > 1:
        print(pd.DataFrame(summary).to_string(index=False, float_format="%.2f", na_rep=""))
    if wrong:
        raise GradbenchError("; ".join(wrong))


if __name__ == "__main__":
    harness.main_of(main)
