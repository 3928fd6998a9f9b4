"""`gradbench bench attacks`: the attacks beside foolbox's, on the same network and images."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from gradbench.bench.settings import (
    DEFAULT_OUT,
    Parser,
    Settings,
    add_condition,
    condition,
    file_stem,
    positive,
)
from gradbench.bench.table import aligned
from gradbench.errors import GradbenchError, unknown

if TYPE_CHECKING:
    from gradbench.backbones.backbone import Backbone
    from gradbench.bench.against_foolbox import Effect
    from gradbench.bench.timing import Ratio
    from gradbench.challenges.base import CleanBatch

RANDOM = "random"
TILES = "tiles"
COLUMNS = (
    *("attack", "contender", "speed", "speed_low", "speed_high", "images_per_second"),
    *("success", "l2", "l2_ratio", "alike", "rounds", "images", "note", "weights", "source"),
)
EPILOG = """\
examples
  gradbench bench attacks --width 32 --dataset cifar10 --data DIR \\
      --checkpoint results/weights/resnet18-cifar10-w32-s0.safetensors
  gradbench bench attacks --attacks fgsm,bim,pgd --rounds 9
  gradbench bench attacks --attacks cw --images 40 --rounds 1

Both take turns in rounds; `speed` is foolbox's time divided by ours, the median of the rounds and
their range: above 1, gradbench is faster. `success`: share of the images that were classified
correctly and are not any more; `L2`: mean over those, pixels not rounded to the grid; `alike`:
share of images on which both succeed or both fail. Parameters are frozen for both. Without
--checkpoint weights are random and what the network says counts as right; without --dataset images
are tiles of two photographs.
"""
HEADER = ("attack", "images/s", "foolbox", "speed", "(min–max)", "success", "foolbox", "L2",
          "foolbox", "alike", "settings")  # fmt: skip


@dataclass(frozen=True)
class Compared:
    """One attack beside foolbox's.

    Attributes:
        name: of the attack.
        seconds: per image, (ours, theirs), one for each round.
        speed: their time divided by ours.
        effects: what both did.
        alike: share of images on which both succeed or both fail.
        note: why there is nothing.
    """

    name: str
    seconds: tuple[list[float], list[float]] | None = None
    speed: Ratio | None = None
    effects: tuple[Effect, Effect] | None = None
    alike: float | None = None
    note: str = ""


def main(words: list[str]) -> None:
    """Run the benchmark, print its table and write its CSV file."""
    given = _parser().parse_args(words)
    from gradbench.bench import networks, real, record
    from gradbench.bench.against_foolbox import ATTACKS

    names = [n.strip() for n in given.attacks.split(",")] if given.attacks else list(ATTACKS)
    for name in names:
        if name not in ATTACKS:
            raise unknown("attack to compare", name, ATTACKS)
    if given.data is not None and given.dataset is None:
        raise GradbenchError("--data is the folder of data sets: name one of them with --dataset")
    size, given.image_size = given.image_size, given.image_size or 32
    settings = networks.complete(replace(condition(given), precision=""))
    try:
        given.out.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise GradbenchError(f"--out {given.out}: {fault.strerror}") from fault
    root = given.data or Path("data")
    if given.dataset:
        images = real.images_of(given.dataset, root, given.images, size, settings)
    else:
        images = real.tiles(given.images, settings.image_size)
    settings = replace(settings, image_size=images.shape[1], batch=len(images))
    about = record.made_by(("bench", "attacks", *words), os.getloadavg()[0])
    f, _ = real.make(settings, len(images), given.checkpoint, images)
    clean = _clean(f, images, trained=given.checkpoint is not None)
    found = [_compare(name, f, clean, given.rounds, settings) for name in names]
    shared = record.made_under(settings, f, about) | {
        "weights": given.checkpoint.stem if given.checkpoint else RANDOM,
        "source": f"{images.name}/{images.split}",
        "rounds": given.rounds,
        "images": len(images),
        "foolbox": record.version("foolbox"),
    }
    made = [c for c in (*record.CONDITION, *record.MADE_BY) if c not in record.LIBRARIES]
    columns = (*COLUMNS, *(c for c in made if c != "precision"), "foolbox")
    rows = [shared | row for one in found for row in _rows(one)]
    machine = shared["accelerator"] or ""
    what = (f"{shared['weights']}_weights", f"{given.dataset or TILES}_images")
    stem = file_stem("attacks", settings, machine, *what)
    if set(names) < set(ATTACKS):
        stem += f"-only_{'_'.join(names)}"
    path = given.out / f"{stem}.csv"
    record.write([{c: row.get(c) for c in columns} for row in rows], path, columns)
    print(
        f"{settings.backbone}, weights: {shared['weights']}; {len(images)} images of "
        f"{settings.image_size} pixels, {shared['source']}; {machine or shared['processor']}"
    )
    print(_table(found, ATTACKS))
    print(f"written to {path}")


def _clean(f: Backbone, images: Any, trained: bool) -> CleanBatch:
    """Return the images as one batch; what an untrained network says is their label."""
    import torch

    from gradbench.challenges.base import CleanBatch

    f.eval().requires_grad_(False)
    pixels = images.images[: len(images)]
    clean = CleanBatch.from_pixels(pixels, images.labels, images.sources, f.device, quantise=False)
    if trained:
        return clean
    with torch.no_grad():
        return replace(clean, labels=f(clean.grey / 255).argmax(1))


def _compare(
    name: str, f: Backbone, clean: CleanBatch, rounds: int, settings: Settings
) -> Compared:
    """Time one attack and foolbox's in turn, and look at what they did."""
    from gradbench.bench import against_foolbox, timing
    from gradbench.bench.contenders import Contender, Unavailable

    try:
        both = against_foolbox.pair(name, f, clean)
    except Unavailable as fault:
        return Compared(name, note=str(fault))
    contenders = [
        Contender(f"{name} {who}", run, len(clean.grey))
        for who, run in (("gradbench", both.own), ("foolbox", both.other))
    ]
    timed = timing.measure(contenders, rounds, f.device)
    if timed.failed:
        return Compared(name, note="; ".join(timed.failed.values()))
    own, other = (timed.seconds[c.name] for c in contenders)
    effects = tuple(against_foolbox.effect(f, clean, timed.norms[c.name]) for c in contenders)
    alike = float((effects[0].succeeded == effects[1].succeeded).float().mean())
    return Compared(name, (own, other), timing.ratio(other, own), effects, alike)


def _rows(one: Compared) -> list[dict[str, Any]]:
    """Return one row for each side."""
    if one.seconds is None:
        return [{"attack": one.name, "note": one.note}]
    rows = []
    for side, contender in enumerate(("gradbench", "foolbox")):
        row = {
            "attack": one.name,
            "contender": contender,
            "images_per_second": 1 / median(one.seconds[side]),
            "success": one.effects[side].success,
            "l2": one.effects[side].l2,
            "alike": one.alike,
        }
        if side == 0:
            row |= zip(("speed", "speed_low", "speed_high"),
                       (one.speed.median, one.speed.low, one.speed.high))  # fmt: skip
            both = [effect.l2 for effect in one.effects]
            row["l2_ratio"] = both[0] / both[1] if all(both) else None
        rows.append(row)
    return rows


def _table(found: list[Compared], settings: dict[str, str]) -> str:
    body = []
    for one in found:
        cells = [""] * 9
        if one.seconds is not None:
            own, other = one.effects
            sizes = ["" if e.l2 is None else f"{e.l2:.4f}" for e in (own, other)]
            cells = [f"{1 / median(seconds):.3g}" for seconds in one.seconds]
            cells += [f"{one.speed.median:.2f}", f"({one.speed.low:.2f}–{one.speed.high:.2f})"]
            cells += [f"{own.success:.1%}", f"{other.success:.1%}", *sizes, f"{one.alike:.1%}"]
        body.append((one.name, *cells, one.note or settings[one.name]))
    return aligned(HEADER, body)


def _parser() -> Parser:
    parser = Parser(
        prog="gradbench bench attacks",
        usage="gradbench bench attacks [options]",
        description="Speed, success and size of the attacks, beside foolbox's (bench extra).",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_condition(parser, without=("precision", "batch"))
    parser.set_defaults(image_size=None, batch=1)
    add = parser.add_argument_group("network and images").add_argument
    add("--checkpoint", type=Path, metavar="FILE", help="weights of the network (random)")
    add("--dataset", metavar="NAME", help="its test images (tiles of two photographs)")
    add("--data", type=Path, metavar="DIR", help="folder of data sets (data)")
    add("--images", type=positive, default=100, metavar="N", help="how many, one batch (100)")
    add = parser.add_argument_group("measuring").add_argument
    add("--attacks", metavar="A,B,…", help="which of them (all)")
    add("--rounds", type=positive, default=3, metavar="N", help="times each is timed (3)")
    add("--out", type=Path, default=DEFAULT_OUT, metavar="DIR",
        help=f"folder of the CSV file ({DEFAULT_OUT})")  # fmt: skip
    return parser
