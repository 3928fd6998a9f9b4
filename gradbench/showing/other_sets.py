"""A picture of other sets, before and after they are brought to the in-distribution shape."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gradbench.data.imageset import join_notes
from gradbench.report.sheet import Panel, Row, sheet
from gradbench.run.experiment import Experiment
from gradbench.showing.choice import Choice, label_name, load, originals, spread
from gradbench.showing.made import named
from gradbench.store import Store

USUAL, FEW = 12, 4
"""Images shown of the only set, and of each of several, where no number is asked for."""


def show_sets(experiment: Experiment, _: Store, choice: Choice, path: Path, asked: str) -> None:
    """Draw images of other sets beside what they are in the in-distribution shape."""
    shape = experiment.dataset.shape or load(experiment.dataset, experiment.data).shape
    size = f"{shape[2]}x{shape[1]}"
    names = [cell.name for cell in experiment.cells]
    rows, notes, sizes = [], [], set()
    for cell in experiment.cells:
        whole = load(experiment.other_dataset(cell.challenge), experiment.data, ("challenge",))
        count = choice.count or (USUAL if len(names) == 1 else FEW)
        before = whole.select(spread(whole, count, choice.seed))
        after = cell.challenge.prepare(before, shape, cell.name)
        notes.append(
            f"{cell.name}: {join_notes(f'{len(whole):,} images', after.status, after.note)}"
        )
        pairs = zip(originals(before, np.arange(len(before))), after.images[:], before.labels)
        for old, new, label in pairs:
            sizes.add(f"{old.shape[2]}x{old.shape[1]}")
            name = label_name(before, int(label)) if len(np.unique(whole.labels)) > 1 else ""
            label = name if len(names) == 1 else f"{cell.name}\n{name}"
            rows.append(Row(label, [Panel(old, f"{old.shape[2]}x{old.shape[1]}"), Panel(new)]))
    if len(sizes) == 1:
        rows = [Row(row.label, [Panel(row.panels[0].pixels), row.panels[1]]) for row in rows]
    headings = [f"original\n{sizes.pop()}" if len(sizes) == 1 else "original", f"challenge\n{size}"]
    how = "" if len(names) > 1 else f"{len(rows)} images spread over the classes, "
    heading = f"{named(experiment, asked)} for {experiment.dataset.name}"
    sheet(path, heading, [*notes, f"{how}drawn with seed {choice.seed}"], rows, headings)
