"""Pictures of challenges: what they make of clean images, level by level."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from gradbench.backbones.obtain import Network
from gradbench.challenges.base import Derived
from gradbench.challenges.other_set import OtherSet
from gradbench.config import group_files, load_member
from gradbench.data.gather import InDistribution
from gradbench.data.imageset import ImageSet
from gradbench.data.raw import join_notes
from gradbench.errors import GradbenchError
from gradbench.experiment import Cell, Experiment
from gradbench.reporting.sheet import Panel, Row, sheet
from gradbench.showing.choice import (
    Choice,
    drawn_as,
    label_name,
    load,
    spread,
    title,
    uint8,
)
from gradbench.showing.sets import in_rows
from gradbench.store import Store
from gradbench.trial import Trial

USUAL = 8
"""Images shown of one challenge where no number is asked for."""


def show_challenge(
    experiment: Experiment, store: Store, choice: Choice, path: Path, asked: str
) -> None:
    """Draw images before and after every challenge of an experiment.

    Corruptions have a column for each level, attacks one for the perturbation, other sets one for
    the images as they were before they were brought to shape.

    Args:
        experiment: with the challenges and all settings.
        store: where trained networks lie.
        choice: of the images.
        path: of the PNG.
        asked: what the user called the challenges.

    Raises:
        GradbenchError: if challenges of several kinds are asked for, an attack has no network, or
            the picture cannot be written.
        MissingData: if images are not here.
    """
    from gradbench.showing.attacks import show_attacks
    from gradbench.showing.other_sets import show_sets

    draw = {"set": show_sets, "attack": show_attacks, "images": show_levels}
    kinds = {_kind(cell): cell.name for cell in experiment.cells}
    if not kinds:
        raise GradbenchError("challenge=: name a challenge, `gradbench list challenges` tells all")
    if len(kinds) > 1:
        raise GradbenchError(
            f"{' and '.join(kinds.values())} are shown in different columns: ask for one at a time"
        )
    draw[next(iter(kinds))](experiment, store, choice, path, asked)


def _kind(cell: Cell) -> str:
    if isinstance(cell.challenge, OtherSet):
        return "set"
    attack = isinstance(cell.challenge, Derived) and cell.challenge.uses_network
    return "attack" if attack else "images"


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


@contextlib.contextmanager
def trial(
    experiment: Experiment, count: int, choice: Choice, f: Network | None = None
) -> Iterator[Trial]:
    """Give a trial that measures some clean images alone, and leaves nothing in the store of runs.

    Args:
        experiment: with the challenges.
        count: of clean images.
        choice: its seed chooses them.
        f: the network, for attacks.
    """
    whole = load(experiment.dataset, experiment.data)
    part = whole.select(spread(whole, count, choice.seed))
    part = replace(part, images=np.asarray(part.images[:]))
    with tempfile.TemporaryDirectory() as folder:
        images = InDistribution(whole, whole, whole, part)
        yield Trial(experiment, images, f, experiment.seeds[0], Store(folder))


def made_from(tried: Trial, cell: Cell) -> ImageSet:
    """Return the images of a challenge, in memory."""
    made = tried.challenge(cell).images
    return replace(made, images=np.asarray(made.images[:]))


def how_many(clean: ImageSet, choice: Choice, spread_out: bool = True) -> str:
    """Say which images are shown, and how large."""
    count = "1 image" if len(clean) == 1 else f"{len(clean)} images"
    over = " spread over the classes," if spread_out and len(clean) > 1 else ""
    return f"{count}{over} drawn with seed {choice.seed}; {drawn_as(clean)}"


def described(experiment: Experiment, asked: str) -> str:
    """Return what the file of a challenge or suite says of it, nothing for what has no file."""
    if asked not in group_files("challenge", experiment.dirs):
        return ""
    return load_member("challenge", asked, experiment.dirs).get("description") or ""


def named(experiment: Experiment, asked: str) -> str:
    """Return the name of a challenge or suite; of a list, the first of its members."""
    if asked in group_files("challenge", experiment.dirs):
        return asked
    names = list(dict.fromkeys(cell.name for cell in experiment.cells))
    few = ", ".join(names[:4])
    return few if len(names) <= 4 else f"{few} and {len(names) - 4} more"
