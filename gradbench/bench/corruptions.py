"""`gradbench bench corruptions`: how long each family of corruptions takes at each level."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from gradbench.bench.settings import DEFAULT_OUT, Parser, cores, positive
from gradbench.bench.table import aligned
from gradbench.errors import GradbenchError, unknown
from gradbench.support.progress import Progress

if TYPE_CHECKING:
    import torch

    from gradbench.challenges.corruptions.base import CommonCorruption
    from gradbench.data.imageset import ImageSet

BATCH = 100
"""Images a pass, as in a run."""
IMAGES = 10_000
"""Times are told for so many."""
COLUMNS = (
    *("family", "level", "table", "seconds", "seconds_low", "seconds_high", "cpu_seconds"),
    "images_per_second",
    *("of_images", "measured_images", "rounds", "image_size", "channels", "batch", "device"),
    *("threads", "processor", "cores", "load_average", "accelerator", "gradbench", "python"),
    *("torch", "commit", "changed", "date", "command"),
)
EPILOG = f"""\
examples
  gradbench bench corruptions
  gradbench bench corruptions --families fog,snow --table imagenet --image-size 224 --images 50
  gradbench bench corruptions --device cuda --images 10000

Seconds for {IMAGES:,} images, each family at each level: median of the rounds, worked out from the
images that are measured. Images are those of the scenes that scikit-learn brings, cut to size; the
time of most families does not depend on what is on them.
"""


@dataclass(frozen=True)
class Timed:
    """What one family took at one level.

    Attributes:
        family: its name.
        level: 1 to 5.
        seconds: of each round, for 10,000 images.
        cpu_seconds: of all processor cores together, likewise: what a busy machine does not change.
    """

    family: str
    level: int
    seconds: tuple[float, ...]
    cpu_seconds: tuple[float, ...]


def main(words: list[str]) -> None:
    """Run the benchmark, print its table and write its CSV file."""
    given = _parser().parse_args(words)
    from gradbench.challenges.corruptions.tables import FAMILIES, TABLES

    if given.table not in TABLES:
        raise unknown("table of constants", given.table, TABLES)
    families = given.families.split(",") if given.families else list(FAMILIES)
    for family in families:
        if family not in FAMILIES:
            raise unknown("family of corruptions", family, FAMILIES)
    try:
        given.out.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise GradbenchError(f"--out {given.out}: {fault.strerror}") from fault
    import torch

    from gradbench.bench import real, record
    from gradbench.report import provenance
    from gradbench.run.experiment import find_device

    images = real.tiles(given.images, given.image_size)
    device, load = find_device(given.device), os.getloadavg()[0]
    before = torch.get_num_threads()
    torch.set_num_threads(given.threads or before)
    threads = torch.get_num_threads()
    try:
        found = measure(families, given.table, images, given.rounds, device)
    finally:
        torch.set_num_threads(before)
    hardware = provenance.hardware(device)
    shared = record.made_by(("bench", "corruptions", *words), load) | {
        "table": given.table,
        "of_images": IMAGES,
        "measured_images": given.images,
        "rounds": given.rounds,
        "image_size": given.image_size,
        "channels": 3,
        "batch": BATCH,
        "device": str(device),
        "threads": threads,
        **{name: hardware.get(name) for name in ("processor", "cores", "accelerator")},
    }
    machine = hardware.get("accelerator") or f"{threads}thread{'s' * (threads != 1)}"
    stem = f"corruptions-{given.table}-{given.image_size}px-{device.type}-{machine}"
    path = given.out / f"{stem.lower().replace(' ', '_')}.csv"
    rows = [shared | _numbers(one) for one in found]
    record.write([{c: row.get(c) for c in COLUMNS} for row in rows], path, COLUMNS)
    print(f"seconds for {IMAGES:,} images of {given.image_size} pixels, table {given.table}, on "
          f"{hardware.get('accelerator') or hardware.get('processor')}")  # fmt: skip
    print(_table(found))
    if load > (hardware.get("cores") or 1):
        print(f"the machine is busy (load {load:.1f}): see the column cpu_seconds of the file")
    print(f"written to {path}")


def measure(
    families: Sequence[str], table: str, images: ImageSet, rounds: int, device: torch.device
) -> list[Timed]:
    """Time every family at every level, families in turn in every round.

    Args:
        families: their names.
        table: of the constants.
        images: to corrupt.
        rounds: measurements of each.
        device: to compute on.
    """
    from gradbench.config import load_member
    from gradbench.support.instantiate import instantiate

    made = {
        family: instantiate(
            "challenge", family, load_member("challenge", family) | {"table": table}
        )
        for family in families
    }
    cells = [(family, level) for family in families for level in made[family].levels]
    times: dict[tuple[str, int], list[tuple[float, float]]] = {cell: [] for cell in cells}
    with Progress("timing", len(cells) * (rounds + 1), "measurements") as progress:
        for number in range(rounds + 1):
            for family, level in cells:
                part = images if number else images.select(range(min(BATCH, len(images))))
                taken = _once(made[family], level, part, device)
                if number:  # the first time fills tables
                    times[family, level].append(tuple(t * IMAGES / len(images) for t in taken))
                progress.advance(1)
    return [Timed(*cell, *zip(*taken)) for cell, taken in times.items()]


def _once(
    corruption: CommonCorruption, level: int, images: ImageSet, device: torch.device
) -> tuple[float, float]:
    """Return seconds, and seconds of the processor's cores together."""
    import torch

    from gradbench.challenges.base import CleanBatch

    begun, busy = time.perf_counter(), time.process_time()
    for start in range(0, len(images), BATCH):
        rows = slice(start, start + BATCH)
        arrays = images.images[rows], images.labels[rows], images.sources[rows]
        batch = CleanBatch.from_pixels(*arrays, device)
        corruption.to_pixels(corruption.perturb(batch, corruption.strength_at(level), 0), batch)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begun, time.process_time() - busy


def _numbers(one: Timed) -> dict:
    middle = median(one.seconds)
    return {
        "family": one.family,
        "level": one.level,
        "seconds": middle,
        "seconds_low": min(one.seconds),
        "seconds_high": max(one.seconds),
        "cpu_seconds": median(one.cpu_seconds),
        "images_per_second": IMAGES / middle,
    }


def _table(found: Sequence[Timed]) -> str:
    levels = sorted({one.level for one in found})
    lines: dict[str, list[str]] = {}
    for one in found:
        lines.setdefault(one.family, []).append(f"{median(one.seconds):.2f}")
    header = ("family", *(f"level {level}" for level in levels), "")
    return aligned(header, [(family, *cells, "") for family, cells in lines.items()])


def _parser() -> Parser:
    parser = Parser(
        prog="gradbench bench corruptions",
        usage="gradbench bench corruptions [options]",
        description="Seconds that each family of corruptions takes at each level.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--families", metavar="NAMES", help="separated by commas (all)")
    add(
        "--table", default="cifar", metavar="NAME", help="of the constants: cifar, imagenet (cifar)"
    )
    add("--image-size", type=positive, default=32, metavar="PIXELS", help="height and width (32)")
    add("--images", type=positive, default=1000, metavar="N", help="how many are measured (1000)")
    add("--rounds", type=positive, default=3, metavar="N", help="measurements of each (3)")
    add("--device", default="cpu", metavar="NAME", help="cpu, cuda, cuda:1 (cpu)")
    add("--threads", type=cores, metavar="N", help="threads of the processor (all)")
    add("--out", type=Path, default=DEFAULT_OUT, metavar="DIR",
        help=f"folder of the CSV file ({DEFAULT_OUT})")  # fmt: skip
    return parser
