"""What the studies beside the runs share: every network of an experiment, and the CSV of its rows.

Imported by `fusions.py` and `layers.py`; by itself it does nothing.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

from gradbench.backbones.trained_network import load_or_train
from gradbench.cli.composing import for_hydra
from gradbench.config import compose
from gradbench.pipeline import order
from gradbench.run.clean_images import clean_images
from gradbench.run.experiment import read
from gradbench.run.trial import Trial
from gradbench.store import Store


def write(
    path: Path, columns: Sequence[str], words: Sequence[str], measure: Callable[[Trial], list]
) -> None:
    """Measure every network of an experiment and write the rows.

    Args:
        path: of the CSV.
        columns: its header.
        words: settings of `gradbench run`, the detectors among them.
        measure: gives the rows of one network.
    """
    experiment = read(compose(list(map(for_hydra, words))))
    images = clean_images(experiment)
    store = Store(Path(experiment.config["store"]).expanduser())
    rows = []
    for seed in experiment.seeds:
        wanted = order(experiment, images, seed)
        f = load_or_train(wanted, images.train, images.test, store, hold_out=images.hold_out)
        rows += measure(Trial(experiment, images, f, seed, store))
    with open(path, "w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, lineterminator="\n").writerows([columns, *rows])
