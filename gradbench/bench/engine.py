"""`gradbench bench engine`: the gradient engine beside an ordinary step and the other ways."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gradbench.bench.settings import (
    DEFAULT_OUT,
    Parser,
    Settings,
    add_condition,
    condition,
    file_stem,
    positive,
)
from gradbench.bench.table import aligned, table
from gradbench.errors import GradbenchError, unknown
from gradbench.support.progress import Progress

if TYPE_CHECKING:
    from torch import Tensor, nn

    from gradbench.bench.record import Line

STEP = "step"
OPPONENTS = {
    "forward": "the forward pass alone",
    STEP: "forward and backward pass with weight gradients, contiguous and channels-last:\n"
    "               the faster one is what all ratios are taken to, so it always takes part",
    "engine": "gradbench.gradients.squared_norms",
    "vmap": "torch.func.vmap(grad) over micro-batches of 8 images",
    "backpack": "BackPACK's BatchL2Grad (bench extra)",
    "pytorch_ood": "pytorch-ood's GradUncertainty (bench extra)",
    "loop": "one image at a time, measured on 8 images",
}
EPILOG = """\
examples
  gradbench bench engine
  gradbench bench engine --backbone densenet_bc_100_12 --threads 1
  gradbench bench engine --backbone torchvision:vit_b_16 --batch 8 --image-size 224
  gradbench bench engine --backbone torchvision:swin_t@64,timm:beit_base_patch16_224@224 --batch 16
  gradbench bench engine --batch 512 --device cuda --precision bfloat16
  gradbench bench engine --contenders engine,loop --rounds 10 --no-memory

All contenders work on the same random batch in one process, in turn, in rounds; ratios are taken
within a round and their median and range shown. Memory is the peak above model and images: on a
processor each contender gets a process of its own. `difference` is the largest relative difference
of squared norms from the engine's in full precision, differences of the least gradients (below a
millionth of an image's largest squared norm) taken relative to that millionth. About 1e-6 is usual
in float32; up to 1e-2 for single images with a ReLU so close to zero that rounding decides.
"""


def main(words: list[str]) -> None:
    """Run the benchmark, print its table and write its CSV file."""
    given = _parser().parse_args(words)
    settings = condition(given)
    chosen = _chosen(given.contenders)
    try:
        given.out.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise GradbenchError(f"--out {given.out}: {fault.strerror}") from fault
    wrong, ratios, networks = [], [], _each(settings)
    for one in networks:
        try:
            found, reference, alone, path = _run(words, chosen, one, given)
        except GradbenchError as fault:  # of several, the others are measured all the same
            if len(networks) == 1:
                raise
            wrong.append(str(fault))
            continue
        print(table(found))
        print(f"time and memory: ratios to {reference}\nwritten to {path}")
        disagree = [line.contender for line in found if line.agrees is False]
        if disagree:
            where = f" ({one.backbone})" if len(networks) > 1 else ""
            wrong.append(f"norms disagree with the engine's: {', '.join(disagree)}{where}")
        ratios.append((one, found, alone))
    if len(ratios) > 1:
        print(_summary(chosen, ratios))
    if wrong:
        raise GradbenchError("; ".join(wrong))


def _run(
    words: list[str], chosen: list[str], settings: Settings, given: argparse.Namespace
) -> tuple[list[Line], str, int, Path]:
    """Measure one network, print its headline and write its file.

    Returns:
        The lines, what they are held against, tensors that took one image at a time, the file.
    """
    from gradbench.bench import networks, record
    from gradbench.gradients import squared_norms

    settings = networks.complete(settings)
    model, images = networks.make(settings)
    about = record.made_by(("bench", "engine", *words), os.getloadavg()[0])
    found, reference = _measure(chosen, model, images, settings, given.rounds, given.memory)
    rows = record.rows(found, reference, settings, model, given.rounds, about)
    stem = file_stem("engine", settings, rows[0]["accelerator"] or "")
    if len(chosen) < len(OPPONENTS):
        stem += f"-only_{'_'.join(chosen)}"
    path = given.out / f"{stem}.csv"
    record.write(rows, path)
    print(_headline(settings, rows[0]["accelerator"] or rows[0]["processor"], given.rounds))
    routes = squared_norms(model, images[:2]).routes.values()
    return found, reference, sum(how.startswith("one image") for how in routes), path


def _each(settings: Settings) -> list[Settings]:
    """Return the settings of every network that is asked for, each NAME or NAME@PIXELS."""
    found = []
    for name in filter(None, map(str.strip, settings.backbone.split(","))):
        name, at, pixels = name.partition("@")
        try:
            size = positive(pixels) if at else settings.image_size
        except argparse.ArgumentTypeError as fault:
            raise GradbenchError(f"--backbone {name}@{pixels}: {fault}") from fault
        found.append(replace(settings, backbone=name, image_size=size))
    if not found:
        raise GradbenchError("--backbone: no network was named")
    return found


def _summary(chosen: list[str], ratios: list[tuple[Settings, list[Line], int]]) -> str:
    """Return one line per network: the time of each contender beside the ordinary step's."""
    body = []
    for settings, found, alone in ratios:
        times = {line.contender: line.ratio for line in found}
        cells = [f"{times[n].median:.2f}" if times.get(n) else "" for n in chosen if n != STEP]
        body.append([settings.backbone, str(settings.image_size), *cells, str(alone)])
    header = ("network", "pixels", *(n for n in chosen if n != STEP), "tensors one at a time")
    return aligned(header, body)


def _measure(
    chosen: list[str],
    model: nn.Module,
    images: Tensor,
    settings: Settings,
    rounds: int,
    with_memory: bool,
) -> tuple[list[Line], str]:
    """Measure memory, then time, then agreement; what fails early is left out of the rest."""
    from gradbench.bench import contenders as room
    from gradbench.bench import memory, networks, record, timing
    from gradbench.bench.agreement import difference
    from gradbench.gradients import squared_norms

    device = networks.find_device(settings.device)
    names = [name for name in room.CONTENDERS if name in chosen or name in room.STEPS]
    peaks: dict[str, float] = {}
    failed: dict[str, str] = {}
    if with_memory and device.type == "cpu":
        with Progress("memory", len(names), "contenders") as progress:
            for name in names:
                try:
                    peaks[name] = memory.peak_in_child(name, settings)
                except room.Unavailable as fault:
                    failed[name] = str(fault)
                progress.advance(1, name)
    made: dict[str, room.Contender] = {}
    for name in names:
        if name in failed:
            continue
        try:
            made[name] = room.prepare(name, model, images, settings)
        except Exception as fault:  # what a library cannot do is a line of the table
            failed[name] = timing.reason(fault)
    timed = timing.measure(list(made.values()), rounds, device)
    failed |= timed.failed
    if with_memory and device.type == "cuda":
        for name in timed.seconds:
            peaks[name] = memory.peak_on_device(made[name].run, device)
    exact = squared_norms(model, images).values
    differences = {
        name: difference(norms, exact)
        for name, norms in timed.norms.items()
        if norms is not None and (name != "engine" or settings.precision not in TRUTH)
    }
    return record.lines(names, made, timed, peaks, differences, failed, settings.precision)


TRUTH = ("float32", "float64")
"""Precisions in which the engine itself is what the others are compared with."""


def _chosen(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in OPPONENTS:
            raise unknown("contender", name, OPPONENTS)
    return [name for name in OPPONENTS if name in names or name == STEP]


def _headline(settings: Settings, machine: str, rounds: int) -> str:
    width = f" (width {settings.width})" if settings.width else ""
    threads = f"{settings.threads} thread{'s' if settings.threads != 1 else ''}"
    where = machine if settings.device != "cpu" else f"{threads} of {machine}"
    return (
        f"{settings.backbone}{width}, {settings.batch} images of {settings.image_size} pixels, "
        f"{settings.precision}, {where}, {rounds} round{'s' if rounds != 1 else ''}"
    )


def _parser() -> Parser:
    width = max(map(len, OPPONENTS))
    listed = "\n".join(f"  {name:<{width}}  {text}" for name, text in OPPONENTS.items())
    parser = Parser(
        prog="gradbench bench engine",
        usage="gradbench bench engine [options]",
        description=f"Speed and memory of the gradient engine beside\n{listed}",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_condition(parser)
    add = parser.add_argument_group("measuring").add_argument
    add("--contenders", default=",".join(OPPONENTS), metavar="A,B,…", help="which of them (all)")
    add("--rounds", type=positive, default=5, metavar="N", help="times each is timed (5)")
    add("--no-memory", dest="memory", action="store_false", help="leave out peak memory")
    add("--out", type=Path, default=DEFAULT_OUT, metavar="DIR",
        help=f"folder of the CSV file ({DEFAULT_OUT})")  # fmt: skip
    return parser
