"""Shifted images that count as normal: the full spectrum of a benchmark.

OpenOOD's list of CIFAR-10-C names one image for each test image, not its family and level. Where
its own files are not at hand, every measured test image gets one of the 19 families at one of the
five levels, drawn by its source alone, from the published archive or made here.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np

from gradbench.data.image_lists import ImageList
from gradbench.data.imageset import ImageSet, join_notes
from gradbench.data.in_distribution import InDistribution
from gradbench.data.resample import resize_to
from gradbench.run.challenge_images import published, setup
from gradbench.run.experiment import Experiment
from gradbench.store import Store
from gradbench.support.progress import Progress


def shifted_images(
    experiment: Experiment, listed: ImageList, images: InDistribution, store: Store
) -> ImageSet:
    """Return the shifted images that count as normal."""
    files = listed.read_files(experiment.dataset, experiment.data)
    if files is not None:
        return resize_to(files, images.normal.shape)
    clean, cells = images.normal, experiment.shifted_cells
    drawn = np.array([_draw(source, len(cells)) for source in clean.sources.tolist()])
    pixels = np.empty(clean.images.shape, np.uint8)
    notes: dict[str, None] = {}
    with Progress("making shifted images", len(clean)) as progress:
        for number in np.unique(drawn):
            cell, rows = cells[number], np.flatnonzero(drawn == number)
            some = clean.select(rows)
            shifted = published(experiment, cell, replace(images, normal=some), store)
            if shifted is None:
                pixels[rows] = setup(experiment, cell, None).make(some, np.arange(len(some)))
                notes["generated here"] = None
            else:
                pixels[rows] = shifted.images[np.arange(len(some))]
                notes["of the published archive"] = None
            progress.advance(len(rows))
    note = f"one of {len(cells)} families and levels each, drawn here, {' and '.join(notes)}"
    return replace(
        clean, images=pixels, status="generated", note=join_notes(clean.note, note), listed=None
    )


def _draw(source: str, count: int) -> int:
    """Return a number below `count` that depends on the source of an image alone."""
    digest = hashlib.sha256(f"full spectrum\n{source}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % count
