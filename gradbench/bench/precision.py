"""`gradbench bench precision`: what each number format does to squared norms, against float64.

Why quantiles, and not the largest error alone: in float32 most values are right to a millionth, but
where an input of a ReLU lies within rounding of zero, its gradient passes in one format and not in
the other, and all tensors before it change by up to a hundredth, for this image alone. A trained
ResNet-18 of width 32, 500 CIFAR-10 test images, each with 278,528 inputs of ReLUs: one of them has
another sign in float32 than in float64 in 9 images, whose errors are 2e-5 to 3e-3; the errors of
all other images are below 4e-6.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gradbench.bench.settings import (
    DEFAULT_OUT,
    Parser,
    add_condition,
    condition,
    file_stem,
    positive,
)
from gradbench.bench.table import aligned
from gradbench.errors import GradbenchError

if TYPE_CHECKING:
    from gradbench.bench.formats import Outcome

RANDOM = "random"
EPILOG = """\
examples
  gradbench bench precision
  gradbench bench precision --width 32 --dataset cifar10 --data DIR --images 500 \\
      --checkpoint results/weights/resnet18-cifar10-w32-s0.safetensors
  gradbench bench precision --backbone torchvision:vit_b_16 --image-size 224 --images 16 --batch 8

Relative errors of squared norms, one value per image and tensor: median, below which 90 and 99 %
lie, largest. `sum`: the same of the sum over an image's tensors. `rank`: Spearman correlation of
that sum over images with the exact one; `least rank`: the smallest one of a single tensor. `off`:
share of images with any tensor wrong by more than 10 %. `time`: beside float32, batch by batch in
turn. Weights and images that are not named are random, and then the figures are no more than a
hint: trained networks on real images are what counts. The CSV file holds more.
"""
HEADER = (
    *("precision", "median", "90 %", "99 %", "largest", "sum: median", "99 %"),
    *("rank", "least rank", "off", "time", "note"),
)


def main(words: list[str]) -> None:
    """Run the benchmark, print its table and write its CSV file."""
    given = _parser().parse_args(words)
    if given.data is not None and given.dataset is None:
        raise GradbenchError("--data is the folder of data sets: name one of them with --dataset")
    size = given.image_size
    given.image_size = size or 32
    settings = condition(given)
    try:
        given.out.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise GradbenchError(f"--out {given.out}: {fault.strerror}") from fault
    from gradbench.bench import formats, networks, real, record

    settings, images = networks.complete(settings), None
    if given.dataset:
        root = given.data or Path("data")
        images = real.images_of(given.dataset, root, given.images, size, settings)
        settings = replace(settings, image_size=images.shape[1])
    model, pixels = real.make(settings, given.images, given.checkpoint, images)
    about = record.made_by(("bench", "precision", *words), os.getloadavg()[0])
    found = formats.measure(model, pixels, settings)
    shared = record.made_under(settings, model, about) | {
        "weights": given.checkpoint.stem if given.checkpoint else RANDOM,
        "source": f"{images.name}/{images.split}" if images else RANDOM,
        "status": images.status if images else RANDOM,
        "images": len(pixels),
    }
    columns = [*formats.NUMBERS, "weights", "source", "status", "images"]
    left_out = (*columns, *record.LIBRARIES)
    columns += [c for c in (*record.CONDITION, *record.MADE_BY) if c not in left_out]
    rows = [shared | one.numbers() for one in found]
    machine = shared["accelerator"] or ""
    what = (f"{shared['weights']}_weights", f"{len(pixels)}_{given.dataset or RANDOM}_images")
    path = given.out / f"{file_stem('precision', settings, machine, *what)}.csv"
    record.write([{c: row.get(c) for c in columns} for row in rows], path, columns)
    print(
        f"{settings.backbone}, weights: {shared['weights']}; {len(pixels)} images of "
        f"{settings.image_size} pixels, {shared['source']}; {machine or shared['processor']}"
    )
    print(_table(found))
    print(f"written to {path}")


def _table(found: list[Outcome]) -> str:
    body = []
    for one in found:
        cells = [""] * 9
        if one.rounding:
            sums = one.rounding.sums
            errors = (*one.rounding.values.values(), sums["median"], sums["p99"])
            ranks = (one.rounding.rank, one.rounding.least_rank)
            cells = [f"{error:.1e}" for error in errors]
            cells += ["" if rank is None else f"{rank:.5f}" for rank in ranks]
            cells.append(f"{one.rounding.off:.1%}")
        time = f"{one.time.median:.2f}" if one.time else ""
        body.append((str(one.format), *cells, time, one.note))
    return aligned(HEADER, body)


def _parser() -> Parser:
    parser = Parser(
        prog="gradbench bench precision",
        usage="gradbench bench precision [options]",
        description="Error of squared gradient norms in float32, TensorFloat-32, bfloat16 and\n"
        "float16, against float64 on the same network and images.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_condition(parser, without=("precision",))
    parser.set_defaults(image_size=None)
    add = parser.add_argument_group("network and images").add_argument
    add("--checkpoint", type=Path, metavar="FILE", help="weights of the network (random)")
    add("--dataset", metavar="NAME",
        help="its test images, in their own size but with --image-size (random ones)")  # fmt: skip
    add("--data", type=Path, metavar="DIR", help="folder of data sets (data)")
    add("--images", type=positive, default=256, metavar="N", help="how many images (256)")
    add("--out", type=Path, default=DEFAULT_OUT, metavar="DIR",
        help=f"folder of the CSV file ({DEFAULT_OUT})")  # fmt: skip
    return parser
