"""A picture of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gradbench.data.dataset import Dataset, DataSettings
from gradbench.report.sheet import Panel, Row, sheet
from gradbench.showing.choice import Choice, drawn_as, label_name, load, originals, some, title

MOST = 60
"""Classes of a set that are shown."""
PANELS = 150
"""Images of a set that are shown where no number is asked for, about."""
USUAL = 8
"""Images of a class, at most, where no number is asked for."""
ACROSS = 10
"""Panels in a row."""


def show_set(dataset: Dataset, settings: DataSettings, choice: Choice, path: Path) -> None:
    """Draw some images of every class of a set.

    Raises:
        MissingData: if none are here.
        GradbenchError: if the picture cannot be written.
    """
    images = load(dataset, settings)
    labels = np.unique(images.labels)
    shown = labels
    if len(labels) > MOST:
        shown = labels[np.linspace(0, len(labels) - 1, MOST).round().astype(int)]
    count = choice.count or int(np.clip(PANELS // len(shown), 2, USUAL))
    if len(labels) == 1 and choice.count is None:
        count = 5 * USUAL
    rows = []
    for label in shown:
        picked = some(np.flatnonzero(images.labels == label), count, choice.seed, int(label))
        panels = [Panel(pixels) for pixels in originals(images, picked)]
        rows += in_rows(label_name(images, int(label)) if len(labels) > 1 else "", panels, count)
    of = f"{len(shown)} of {len(labels)} classes, " if len(shown) < len(labels) else ""
    drawn = f"{of}{count} images of each class" if len(labels) > 1 else f"{count} images"
    notes = [images.note, f"{drawn}, drawn with seed {choice.seed}; {drawn_as(images)}"]
    sheet(path, f"{title(images)}: {len(images):,} images, {images.status}", notes, rows)


def in_rows(label: str, panels: Sequence[Panel], most: int) -> list[Row]:
    """Return panels as one or more rows of equal length, of at most `ACROSS`."""
    length = min(most, ACROSS)
    rows = []
    for start in range(0, max(len(panels), 1), length):
        part = list(panels[start : start + length])
        rows.append(Row(label if not start else "", part + [None] * (length - len(part))))
    return rows
