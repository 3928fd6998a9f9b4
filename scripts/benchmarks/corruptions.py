"""Seconds that each family of corruptions takes for 10,000 images at each level.

    python scripts/benchmarks/corruptions.py
    python scripts/benchmarks/corruptions.py --families fog,snow --table imagenet --image-size 224

Median of the rounds, worked out from the images that are measured: tiles of two photographs; the
time of most families does not depend on what is on them.
"""

from __future__ import annotations

from functools import partial

import harness
import pandas as pd

from gradbench.backbones.devices import find_device
from gradbench.challenges.base import CleanBatch
from gradbench.challenges.corruptions.base import CommonCorruption
from gradbench.challenges.corruptions.tables import FAMILIES, TABLES
from gradbench.config import load_member
from gradbench.data.imageset import ImageSet
from gradbench.support.instantiate import instantiate

BATCH = 100
"""Images a pass, as in a run."""
COUNT = 10_000
"""Times are for so many images."""


def corrupt(corruption: CommonCorruption, level: int, images: ImageSet, device) -> None:
    """Make the corrupted pixels of images, pass by pass, as a run does."""
    for start in range(0, len(images), BATCH):
        rows = slice(start, start + BATCH)
        arrays = images.images[rows], images.labels[rows], images.sources[rows]
        batch = CleanBatch.from_pixels(*arrays, device)
        corruption.to_pixels(corruption.perturb(batch, corruption.strength_at(level), 0), batch)


def main() -> None:
    """Run the benchmark, print its table and write its CSV file."""
    parser = harness.options_parser(__doc__, ("images", "image_size", "rounds"), images=1000)
    parser.add_argument("--families", metavar="A,B,…", help="which of them (all)")
    parser.add_argument("--table", default="cifar", choices=TABLES, help="constants (cifar)")
    options = parser.parse_args()
    families = harness.chosen_names("family of corruptions", options.families, list(FAMILIES))
    harness.start(options)
    options.image_size = options.image_size or 32
    images, device = harness.load_images(options, options.images), find_device(options.device)
    runs, cells = {}, {}
    for family in families:
        content = load_member("challenge", family) | {"table": options.table}
        corruption = instantiate("challenge", family, content)
        for level in corruption.levels:
            name = f"{family} {level}"
            cells[name] = {"family": family, "level": level}
            runs[name] = partial(corrupt, corruption, level, images, device)
    # the warm-up fills tables that later calls use again
    timed = harness.time_in_turn(runs, options.rounds, device, shortest=0)
    rows = []
    for name, cell in cells.items():
        scale = COUNT / len(images)
        times = {column: value * scale for column, value in timed.columns(name).items()}
        rows.append(cell | times | {"images_per_second": COUNT / times["seconds"]})
    shared = {"table": options.table, "images": len(images), "pass": BATCH}
    harness.write_table("corruptions", rows, options, (), options.table, shared=shared)
    print(f"seconds for {COUNT:,} images")
    print(pd.DataFrame(rows).pivot(index="family", columns="level", values="seconds").round(2))


if __name__ == "__main__":
    harness.main_of(main)
