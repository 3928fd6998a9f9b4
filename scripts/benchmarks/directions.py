"""Time of products with several directions in one pass beside a training step and other ways.

    python scripts/benchmarks/directions.py --width 32
    python scripts/benchmarks/directions.py --backbone densenet_bc_100_12 --directions 1,10

contenders, of all tensors and of the last stage alone
  step       forward and backward pass with the gradients of these weights, contiguous
  norms      gradbench.gradients.squared_norms
  together   gradbench.gradients.alignments with K directions of every tensor, in one call
  separate   the same in K calls with one direction each

All work on the same batch in one process, in turn, in rounds; ratios to the step of all tensors are
taken within a round and their median and range shown. `extra` is what K directions add to the
norms, in steps, for one direction. `difference` is the largest one of products from those of the
separate calls, as a share of the lengths of gradient and direction.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from statistics import median

import harness
import torch
from torch import Tensor

from gradbench.backbones.backbone import Backbone
from gradbench.backbones.devices import find_device
from gradbench.errors import GradbenchError
from gradbench.gradients import Alignments, alignments, squared_norms
from gradbench.outputs.class_alignments import TENSORS, largest_logit
from gradbench.outputs.layers import last_stage

CHOICES = TENSORS[::-1]
COUNTS = "1,2,5,10"
SHOWN = (
    *("tensors", "contender", "directions", "images_per_second", "ratio", "ratio_low"),
    *("ratio_high", "extra", "difference", "note"),
)


def names_of(choice: str, f: Backbone) -> list[str]:
    """Return the names of the parameters of a choice of tensors."""
    return last_stage(f) if choice == "last_stage" else [n for n, _ in f.named_parameters()]


def step(f: Backbone, images: Tensor, names: list[str]) -> None:
    """Make an ordinary forward and backward pass with the gradients of some weights."""
    named = dict(f.named_parameters())
    for name, parameter in named.items():
        parameter.requires_grad_(name in names)
    try:
        torch.autograd.grad(largest_logit(f(images)).sum(), [named[name] for name in names])
    finally:
        for parameter in named.values():
            parameter.requires_grad_(True)


def separate(f: Backbone, images: Tensor, directions: dict[str, Tensor]) -> Tensor:
    """Return products (B, d, K) from one call for each direction."""
    count = len(next(iter(directions.values())))
    each = ({name: v[k] for name, v in directions.items()} for k in range(count))
    return torch.stack([together(f, images, one).products for one in each], dim=2)


def together(f: Backbone, images: Tensor, directions: dict[str, Tensor]) -> Alignments:
    """Return products with all directions from one call."""
    return alignments(f, images, directions, loss=largest_logit)


def contenders(f: Backbone, images: Tensor, choices: list[str], counts: list[int]):
    """Return functions by (tensors, contender, K); K is 0 where there are no directions."""
    runs: dict[tuple[str, str, int], Callable] = {("all", "step", 0): partial(
        step, f, images, names_of("all", f)
    )}  # fmt: skip
    draw = torch.Generator().manual_seed(0)
    for choice in choices:
        names = names_of(choice, f)
        sizes = {n: p.shape for n, p in f.named_parameters() if n in names}
        every = {
            n: torch.randn(max(counts), *shape, generator=draw).to(images)
            for n, shape in sizes.items()
        }
        runs[choice, "step", 0] = partial(step, f, images, names)
        runs[choice, "norms", 0] = partial(
            squared_norms, f, images, loss=largest_logit, parameters=names
        )
        for count in counts:
            few = {name: v[:count] for name, v in every.items()}
            runs[choice, "together", count] = partial(together, f, images, few)
            runs[choice, "separate", count] = partial(separate, f, images, few)
    return runs


def measure(options: argparse.Namespace, choices: list[str], counts: list[int]) -> list[dict]:
    """Return a row for each contender."""
    images = harness.load_images(options, max(options.batch, harness.SETTLING_IMAGES))
    f, pixels = harness.make_backbone(options, images)
    pixels = pixels[: options.batch].contiguous()
    runs = contenders(f, pixels, choices, counts)
    timed = harness.time_in_turn(runs, options.rounds, find_device(options.device))
    reference = ("all", "step", 0)
    if reference in timed.failed:
        raise GradbenchError(f"the ordinary step failed: {timed.failed[reference]}")
    rows = []
    for place in runs:
        choice, contender, count = place
        row = {"tensors": choice, "contender": contender, "directions": count or None}
        if place in timed.failed:
            rows.append(row | {"note": timed.failed[place]})
            continue
        times = timed.seconds[place]
        row["images_per_second"] = len(pixels) / median(times)
        row |= harness.ratio_columns(times, timed.seconds[reference], "ratio")
        norms = timed.seconds.get((choice, "norms", 0))
        if count and norms:
            more = [(t - n) / count for t, n in zip(times, norms)]
            row["extra"] = harness.ratio_columns(more, timed.seconds[reference], "extra")["extra"]
        apart = timed.results.get((choice, "separate", count))
        if contender == "together" and apart is not None:
            row["difference"] = difference(timed.results[place], apart)
        rows.append(row | {"calls": timed.calls[place], "images": len(pixels)})
    return rows


def difference(found: Alignments, apart: Tensor) -> float:
    """Return the largest difference of products, as a share of both lengths."""
    lengths = (found.products / found.cosines).abs()
    clear = (found.cosines.abs() > 0) & lengths.isfinite()
    return float(((found.products - apart).abs() / lengths)[clear].max())


def main() -> None:
    """Run the benchmark, print its table and write its CSV file."""
    names = ("backbone", "width", "checkpoint", "dataset", "data", "batch", "image_size", "rounds")
    parser = harness.options_parser(__doc__, names, rounds=5)
    parser.add_argument("--directions", metavar="K,K,…", default=COUNTS, help=f"({COUNTS})")
    parser.add_argument("--tensors", metavar="A,B", help="all, last_stage (both)")
    options = parser.parse_args()
    chosen = harness.chosen_names("choice of tensors", options.tensors, CHOICES)
    try:
        counts = [harness.positive(k) for k in options.directions.split(",")]
    except argparse.ArgumentTypeError as fault:
        raise GradbenchError(f"--directions {options.directions}: {fault}") from fault
    harness.start(options)
    options.image_size = options.image_size or 32
    harness.write_table("directions", measure(options, chosen, counts), options, SHOWN)


if __name__ == "__main__":
    harness.main_of(main)
