"""Pictures of data sets and of what challenges make of their images (`gradbench data show`)."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image as PIL

from gradbench.backbones.backbone import Backbone, digest
from gradbench.backbones.devices import set_exact_arithmetic
from gradbench.backbones.output_check import check_outputs
from gradbench.backbones.trained_network import TrainedNetwork, find_network
from gradbench.challenges.base import Derived
from gradbench.challenges.other_set import OtherSet
from gradbench.config import group_files, load_member
from gradbench.data.dataset import Dataset, DataSettings
from gradbench.data.files import FileImages
from gradbench.data.imageset import ImageSet, join_notes, to_float, to_grid
from gradbench.data.in_distribution import InDistribution, load_in_distribution
from gradbench.data.loading import WHOLE
from gradbench.data.picture import to_array
from gradbench.errors import GradbenchError, MissingData
from gradbench.report.contact_sheet import Panel, Row, contact_sheet, magnification
from gradbench.run.context import NetworkContext, network_request
from gradbench.run.experiment import Cell, Experiment
from gradbench.store import Store

WORDNET = re.compile(r"^n\d{8} (?=.)")
ROLES = ("test", "challenge", "train")
"""Roles whose images are shown, the first that is there."""
CLASSES, IMAGES, ACROSS = 60, 150, 10
"""Of a set: classes that are shown, images in all where no number is asked for, and in a row."""
USUAL = 8
"""Images of a class or of one challenge where no number is asked for."""
FACTORS = (1, 2, 3, 5, 10, 20, 30, 50, 100)
"""By which perturbations are amplified."""
CLIPPED = 0.005
"""Share of the largest changes that an amplified picture may cut off."""


@dataclass(frozen=True)
class Choice:
    """Which images are shown: how many of each class of a set, or in all with a challenge."""

    count: int | None = None
    seed: int = 0

    def __post_init__(self):
        if self.count is not None and not 1 <= self.count <= 100:
            raise GradbenchError(f"n={self.count}: a whole number of images from 1 to 100")
        if self.seed < 0:
            raise GradbenchError(f"seed={self.seed}: a whole number from 0")


def show_set(dataset: Dataset, settings: DataSettings, choice: Choice, path: Path) -> None:
    """Draw some images of every class of a set.

    Raises:
        MissingData: if none are here.
        GradbenchError: if the picture cannot be written.
    """
    images = _load(dataset, settings)
    labels = np.unique(images.labels)
    chosen = labels
    if len(labels) > CLASSES:
        chosen = labels[np.linspace(0, len(labels) - 1, CLASSES).round().astype(int)]
    count = choice.count or int(np.clip(IMAGES // len(chosen), 2, USUAL))
    if len(labels) == 1 and choice.count is None:
        count = 5 * USUAL
    rows = []
    for label in chosen:
        own = np.flatnonzero(images.labels == label)
        order = np.random.default_rng([choice.seed, int(label)]).permutation(len(own))
        panels = [Panel(pixels) for pixels in _originals(images, own[np.sort(order[:count])])]
        name = _label_name(images, int(label)) if len(labels) > 1 else ""
        rows += _in_rows(name, panels, count)
    part = f"{len(chosen)} of {len(labels)} classes, " if len(chosen) < len(labels) else ""
    drawn = f"{part}{count} images of each class" if len(labels) > 1 else f"{count} images"
    notes = [images.note, f"{drawn}, drawn with seed {choice.seed}; {_drawn_as(images)}"]
    title = f"{images.name} {images.split}: {len(images):,} images, {images.status}"
    contact_sheet(path, title, notes, rows)


def show_challenge(
    experiment: Experiment, store: Store, choice: Choice, path: Path, request: str
) -> None:
    """Draw images before and after every challenge of an experiment.

    Corruptions have a column for each level, attacks one for the perturbation, other sets one for
    the images as they were before they were brought to shape. `store` is where trained networks
    lie, `request` how the user named the challenges.

    Raises:
        GradbenchError: if challenges of several kinds are asked for, an attack has no network, or
            the picture cannot be written.
        MissingData: if images are not here.
    """
    kinds = {}
    for cell in experiment.cells:
        if isinstance(cell.challenge, OtherSet):
            kinds[_other_sets] = cell.name
        else:
            attack = isinstance(cell.challenge, Derived) and cell.challenge.uses_network
            kinds[_attacks if attack else _levels] = cell.name
    if not kinds:
        raise GradbenchError("challenge=: name a challenge, `gradbench list challenges` tells all")
    if len(kinds) > 1:
        raise GradbenchError(
            f"{' and '.join(kinds.values())} are shown in different columns: ask for one at a time"
        )
    names = list(dict.fromkeys(cell.name for cell in experiment.cells))
    name = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    description = ""
    if request in group_files("challenge", experiment.dirs):
        name = request
        description = load_member("challenge", request, experiment.dirs).get("description") or ""
    (draw,) = kinds
    where, notes, rows, headings = draw(experiment, store, choice)
    contact_sheet(path, f"{name} {where}", [description, *notes], rows, headings)


Sheet = tuple[str, list[str], list[Row], list[str]]
"""End of the title, notes, rows and headings."""


def _levels(experiment: Experiment, _: Store, choice: Choice) -> Sheet:
    """Return clean images, and beside them what is made of them at every level."""
    families = list(dict.fromkeys(cell.name for cell in experiment.cells))
    levels = sorted({cell.level or 0 for cell in experiment.cells})
    headings = ["clean", *(f"level {level}" if level else "challenge" for level in levels)]
    rows, notes, any_clean = [], {}, False
    count = choice.count or (USUAL if len(families) == 1 else 1)
    with _context(experiment, count, choice) as context:
        clean = context.images.normal
        for name in families:
            own = {cell.level or 0: cell for cell in experiment.cells if cell.name == name}
            made = {level: _challenge_images(context, cell) for level, cell in own.items()}
            # Images that nothing clean was the source of (noise alone) have no clean column.
            from_clean = all(set(clean.sources) & set(images.sources) for images in made.values())
            any_clean |= from_clean
            for row, source in enumerate(clean.sources):
                panels = [Panel(clean.images[row]) if from_clean else None]
                for images in map(made.get, levels):
                    at = [row] if images and row < len(images) else []
                    if images and from_clean:
                        at = [i for i, one in enumerate(images.sources) if one == source]
                    panels.append(Panel(_uint8(images.images[at[0]])) if at else None)
                label = _label_name(clean, int(clean.labels[row])) if from_clean else ""
                rows.append(Row(label if len(families) == 1 else name * (row == 0), panels))
            first = next(iter(made.values()))
            notes[join_notes(first.status, first.note)] = None
    if not any_clean:
        headings, rows = headings[1:], [Row(row.label, row.panels[1:]) for row in rows]
        if levels == [0] and len(families) == 1:
            headings, rows = [], _in_rows("", [row.panels[0] for row in rows], len(rows))
    where = f"on {clean.name} {clean.split}" if any_clean else f"for {clean.name}"
    return where, ["; ".join(notes), _how_many(clean, choice, any_clean)], rows, headings


def _other_sets(experiment: Experiment, _: Store, choice: Choice) -> Sheet:
    """Return images of other sets beside what they are in the in-distribution shape."""
    shape = experiment.dataset.shape or _load(experiment.dataset, experiment.data).shape
    several = len(experiment.cells) > 1
    rows, notes, sizes = [], [], set()
    for cell in experiment.cells:
        whole = _load(experiment.other_dataset(cell.challenge), experiment.data, ("challenge",))
        count = choice.count or (4 if several else 12)
        before = whole.select(_spread(whole, count, choice.seed))
        after = cell.challenge.prepare(before, shape, cell.name)
        about = join_notes(f"{len(whole):,} images", after.status, after.note)
        notes.append(f"{cell.name}: {about}")
        labelled = len(np.unique(whole.labels)) > 1
        old_images = _originals(before, np.arange(len(before)))
        for old, new, label in zip(old_images, after.images[:], before.labels):
            name = _label_name(before, int(label)) if labelled else ""
            size = f"{old.shape[2]}x{old.shape[1]}"
            sizes.add(size)
            label = f"{cell.name}\n{name}" if several else name
            rows.append(Row(label, [Panel(old, size), Panel(new)]))
    original = "original"
    if len(sizes) == 1:  # the heading says it once
        original += f"\n{sizes.pop()}"
        rows = [Row(row.label, [Panel(panel.pixels) for panel in row.panels]) for row in rows]
    count = "" if several else f"{len(rows)} images spread over the classes, "
    notes.append(f"{count}drawn with seed {choice.seed}")
    headings = [original, f"challenge\n{shape[2]}x{shape[1]}"]
    return f"for {experiment.dataset.name}", notes, rows, headings


def _attacks(experiment: Experiment, store: Store, choice: Choice) -> Sheet:
    """Return clean images, amplified perturbations and attacked images with the network's answers.

    Raises:
        GradbenchError: if there is no trained network.
    """
    set_exact_arithmetic()
    cells, f = experiment.cells, _network(experiment, store)
    rows, heading = [], "change"
    count = choice.count or (USUAL if len(cells) == 1 else 2)
    with _context(experiment, count, choice, f) as context:
        clean = context.images.normal
        check_outputs(f.backbone, clean)
        before = _classified(f.backbone, clean.images, clean.labels)
        for cell in cells:
            attacked = _challenge_images(context, cell)
            changes = 255.0 * (to_float(attacked.images) - to_float(clean.images)).numpy()
            factor = amplification(changes)
            heading = f"change ×{factor}" if len(cells) == 1 else heading
            after = _classified(f.backbone, attacked.images, clean.labels)
            for label, old, change, new in zip(clean.labels, before, changes, after):
                part = change / 255
                l2, linf = np.sqrt(np.square(part).sum()), np.abs(part).max()
                caption = f"×{factor}, " * (len(cells) > 1) + f"L2 {l2:.2f}\nL∞ {linf:.3f}"
                name = _label_name(clean, int(label))
                name = name if len(cells) == 1 else f"{cell.title}\n{name}"
                rows.append(Row(name, [old, Panel(amplified(change, factor), caption), new]))
    config = experiment.backbone(experiment.seeds[0])
    width = f" of width {config['width']}" if config.get("width") else ""
    checkpoint = config.get("checkpoint")
    origin = Path(checkpoint).name if checkpoint else "trained here"
    notes = [
        f"{config['name']}{width}, {origin}; below, the class that it names and its probability, "
        "coloured where wrong",
        _how_many(clean, choice),
    ]
    return f"on {clean.name} {clean.split}", notes, rows, ["clean", heading, "attacked"]


def _network(experiment: Experiment, store: Store) -> TrainedNetwork:
    """Return the network of the checkpoint, else the trained one in the store.

    Raises:
        GradbenchError: if there is neither.
    """
    dataset, data = experiment.dataset, replace(experiment.data, download=False)
    config, seed = experiment.config["backbone"], experiment.seeds[0]
    f = None
    if config.get("checkpoint"):
        train = _load(dataset, data)
        if not dataset.ready("train", data):
            train = dataset.load("train", data)
            train = train.select(np.flatnonzero(~dataset.held_out(train)))
        images = InDistribution(train, train, train, train)
        f = find_network(network_request(experiment, images, seed), train, store)
    elif not any(dataset.ready(role, data) for role in ("train", "test")):
        images = load_in_distribution(dataset, data)
        f = find_network(network_request(experiment, images, seed), images.train, store)
    if f is None:
        raise GradbenchError(
            f"{experiment.cells[0].name} needs a trained network and the store has no "
            f"{config['name']} for {dataset.name}: give backbone.checkpoint=FILE (and its "
            f"settings, such as backbone.width), or train one with `gradbench run "
            f"dataset={dataset.name}`"
        )
    return TrainedNetwork(f, digest(f), "", seed, {})


def _classified(backbone: Backbone, pixels: np.ndarray, labels: np.ndarray) -> list[Panel]:
    """Return images with the class that the network names and its probability."""
    with torch.inference_mode():
        logits = backbone(to_float(pixels).to(backbone.device)).cpu()
    chances, classes = (largest.numpy() for largest in logits.double().softmax(1).max(1))
    captions = [
        f"{WORDNET.sub('', backbone.classes[k])}\n"
        f"{'>99' if 0.995 <= chance < 1 else f'{100 * chance:.0f}'} %"
        for k, chance in zip(classes, chances)
    ]
    wrong = classes != labels
    return [Panel(*panel) for panel in zip(_uint8(pixels), captions, wrong)]


def amplification(changes: np.ndarray) -> int:
    """Return the largest factor at which changes of grey levels still fit into half the range."""
    largest = np.quantile(np.abs(changes), 1 - CLIPPED)
    return max((f for f in FACTORS if f * largest <= 127), default=1)


def amplified(change: np.ndarray, factor: int) -> np.ndarray:
    """Return a change of grey levels as a picture: mid-grey where there is none."""
    return np.clip(128 + np.rint(factor * change), 0, 255).astype(np.uint8)


@contextmanager
def _context(experiment: Experiment, count: int, choice: Choice, f: TrainedNetwork | None = None):
    """Give a context that measures some clean images alone, with a store that is thrown away."""
    whole = _load(experiment.dataset, experiment.data)
    part = whole.select(_spread(whole, count, choice.seed))
    part = replace(part, images=np.asarray(part.images[:]))
    with tempfile.TemporaryDirectory() as folder:
        images = InDistribution(whole, whole, whole, part)
        yield NetworkContext(experiment, images, f, experiment.seeds[0], Store(folder))


def _challenge_images(context: NetworkContext, cell: Cell) -> ImageSet:
    """Return the images of a challenge, in memory."""
    images = context.challenge(cell).images
    return replace(images, images=np.asarray(images.images[:]))


def _load(dataset: Dataset, settings: DataSettings, roles: Sequence[str] = ROLES) -> ImageSet:
    """Return the images of the first role that is here; nothing is downloaded.

    Raises:
        MissingData: if none are here, with the ways to have them.
    """
    settings = replace(settings, download=False)
    if dataset.all_splits() == [WHOLE]:
        roles = ("challenge",)  # an undivided set is not divided for looking at it
    reasons = {role: dataset.ready(role, settings) for role in roles if role in dataset.roles}
    role = next((role for role, reason in reasons.items() if reason is None), None)
    if role is None and any(dataset.archives_of(split) for split in dataset.all_splits()):
        raise MissingData(
            f"{dataset.name} is not on this machine: `gradbench data fetch {dataset.name}` brings "
            "it"
        )
    return dataset.load(role or next(iter(reasons)), settings)  # may raise, and names the ways


def _label_name(images: ImageSet, label: int) -> str:
    """Return the name of a label without its WordNet id, its number where there are no names."""
    if label < 0:  # labels of a challenge are as they were found, also none at all
        return ""
    return WORDNET.sub("", images.classes[label]) if label < len(images.classes) else str(label)


def _spread(images: ImageSet, count: int, seed: int) -> np.ndarray:
    """Return the rows of some images, spread evenly over the classes, class by class."""
    shuffled = pd.Series(images.labels).sample(frac=1, random_state=seed)
    # The first of every class, then the second of every class, and so on.
    turn = shuffled.groupby(shuffled).cumcount().sort_values(kind="stable")
    picked = turn.index[:count].to_numpy()
    return picked[np.lexsort((picked, images.labels[picked]))]


def _originals(images: ImageSet, rows: np.ndarray) -> list[np.ndarray]:
    """Return images as (C, H, W) uint8; files that nobody resampled in their own size."""
    files = images.images
    if not isinstance(files, FileImages) or files.resampling is not None:
        return list(files[rows])
    arrays = []
    for row in rows:
        files[np.array([row])]  # a file that cannot be read is told as everywhere
        with PIL.open(files.paths[row]) as picture:
            arrays.append(to_array(picture, images.shape[0]))
    return arrays


def _in_rows(label: str, panels: Sequence[Panel], most: int) -> list[Row]:
    """Return panels as one or more rows of equal length."""
    length = min(most, ACROSS)
    rows = []
    for start in range(0, max(len(panels), 1), length):
        part = list(panels[start : start + length])
        rows.append(Row("" if start else label, part + [None] * (length - len(part))))
    return rows


def _uint8(pixels: np.ndarray) -> np.ndarray:
    """Return pixels for looking at: float ones are rounded to the 1/255 grid."""
    return pixels if pixels.dtype == np.uint8 else to_grid(to_float(pixels)).numpy()


def _how_many(clean: ImageSet, choice: Choice, spread_out: bool = True) -> str:
    count = "1 image" if len(clean) == 1 else f"{len(clean)} images"
    over = " spread over the classes," if spread_out and len(clean) > 1 else ""
    return f"{count}{over} drawn with seed {choice.seed}; {_drawn_as(clean)}"


def _drawn_as(images: ImageSet) -> str:
    """Say in which size images are shown."""
    files = images.images
    if isinstance(files, FileImages) and files.resampling is None:
        return f"files of {files.native}"
    return magnification(images.shape)
