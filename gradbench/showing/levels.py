"""Pictures of challenges level by level, beside the clean images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gradbench.data.imageset import ImageSet, join_notes
from gradbench.report.sheet import Panel, Row, sheet
from gradbench.run.experiment import Experiment
from gradbench.showing.choice import Choice, label_name, title, uint8
from gradbench.showing.made import USUAL, described, how_many, made_from, named, trial
from gradbench.showing.sets import in_rows
from gradbench.store import Store


def show_levels(experiment: Experiment, _: Store, choice: Choice, path: Path, asked: str) -> None:
    """Draw clean images, and beside them what is made of them at every level.

    Where nothing is made of the clean images (noise alone), there is no clean column.
    """
    families = list(dict.fromkeys(cell.name for cell in experiment.cells))
    levels = sorted({cell.level or 0 for cell in experiment.cells})
    rows, notes, twins = [], {}, False
    with trial(experiment, choice.count or (USUAL if len(families) == 1 else 1), choice) as tried:
        clean = tried.images.normal
        for name in families:
            cells = [cell for cell in experiment.cells if cell.name == name]
            made = {cell.level or 0: made_from(tried, cell) for cell in cells}
            columns = [_column(made.get(level), clean) for level in levels]
            has_twins = all(_is_twin(images, clean) for images in made.values())
            twins |= has_twins
            first = [Panel(image) if has_twins else None for image in clean.images]
            for number, panels in enumerate(zip(first, *columns)):
                label = label_name(clean, int(clean.labels[number])) if has_twins else ""
                rows.append(Row(label if len(families) == 1 else name * (number == 0), panels))
            about = next(iter(made.values()))
            notes[join_notes(about.status, about.note)] = None
    headings = ["clean", *(f"level {level}" if level else "challenge" for level in levels)]
    if not twins:
        headings, rows = headings[1:], [Row(row.label, row.panels[1:]) for row in rows]
    if not twins and levels == [0] and len(families) == 1:
        headings, rows = [], in_rows("", [row.panels[0] for row in rows], len(rows))
    where = f"on {title(clean)}" if twins else f"for {clean.name}"
    said = [described(experiment, asked), "; ".join(notes), how_many(clean, choice, twins)]
    sheet(path, f"{named(experiment, asked)} {where}", said, rows, headings)


def _column(made: ImageSet | None, clean: ImageSet) -> list[Panel | None]:
    """Return a challenge's image for each clean one: its twin, else the next."""
    if made is None:
        return [None] * len(clean)
    places = {source: row for row, source in enumerate(made.sources)}
    rows: Sequence[int | None] = range(len(clean))
    if _is_twin(made, clean):
        rows = [places.get(source) for source in clean.sources]
    return [None if r is None or r >= len(made) else Panel(uint8(made.images[r])) for r in rows]


def _is_twin(made: ImageSet, clean: ImageSet) -> bool:
    """Tell whether images were made from the clean ones."""
    return not set(clean.sources).isdisjoint(made.sources)
