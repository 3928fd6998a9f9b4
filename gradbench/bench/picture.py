"""`gradbench bench picture`: time and memory of the engine and of others, from the kept CSVs."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes

from gradbench.bench.settings import DEFAULT_OUT, Parser
from gradbench.errors import GradbenchError
from gradbench.report import style
from gradbench.support.progress import say

NAMES = {
    "forward": "forward alone",
    "engine": "gradbench",
    "backpack": "BackPACK",
    "vmap": "vmap(grad)",
    "pytorch_ood": "pytorch-ood",
    "loop": "one image at a time",
}
"""Contenders in the order in which they stand, and what they are called."""


def main(words: Sequence[str]) -> None:
    """Draw the picture."""
    parser = Parser("gradbench bench picture", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, metavar="DIR", help="of the CSVs")
    folder = parser.parse_args(words).out
    tables = [rows for rows in map(read, sorted(folder.glob("engine-*.csv"))) if rows]
    if not tables:
        raise GradbenchError(
            f"there is no engine-*.csv in {folder}: `gradbench bench engine` writes one"
        )
    path = folder / "ratios.png"
    draw(tables, path)
    say(f"drawn {path} of {len(tables)} table{'s' if len(tables) > 1 else ''}")


def read(path: Path) -> list[dict[str, str]]:
    """Return the rows of the contenders that were measured; none where the engine was not."""
    with path.open(newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["ratio"] and r["contender"] in NAMES]
    return rows if any(r["contender"] == "engine" for r in rows) else []


def draw(tables: Sequence[Sequence[dict[str, str]]], path: Path) -> None:
    """Draw one panel per table: a bar per contender, the ordinary step a line at one."""
    title = "Gradient norms of all layers, image by image: time beside one forward and backward"
    names = ["gradbench", "others", "forward + backward of the batch", "smallest to largest round"]
    size = (style.WIDTH / 2, 0.5 + 0.19 * max(map(len, tables)))
    with style.drawing(path, title, len(tables), size, names) as (panels, handles):
        for panel, rows in zip(panels, tables):
            found = {row["contender"]: row for row in rows}
            handles[:] = _panel(panel, [name for name in NAMES if name in found], found)
        style.outer_labels(panels, "time / (forward + backward)", "")


def _panel(panel: Axes, order: Sequence[str], found: dict[str, dict[str, str]]) -> list:
    """Draw the bars of one condition; return the handles of the legend."""
    bars = {}
    longest = max(float(row["ratio_high"]) for row in found.values())
    for place, name in enumerate(order):
        row = found[name]
        value, low, high = (float(row[k]) for k in ("ratio", "ratio_low", "ratio_high"))
        own = name == "engine"
        bars[own] = panel.barh(place, value, 0.7, color=style.COLOURS[0] if own else style.FAINT)
        (span,) = panel.plot([low, high], [place, place], color=style.INK, linewidth=0.8)
        panel.text(max(value, high) + 0.02 * longest, place, f"{value:.2f}", va="center")
    step = panel.axvline(1, color=style.COLOURS[1], linewidth=1)
    first = next(iter(found.values()))
    threads = f"{first['threads']} thread{'s' if first['threads'] != '1' else ''}"
    panel.set_title(
        f"{first['backbone'].removeprefix('torchvision:')}, {first['batch']} images of "
        f"{first['image_size']} px, {first['device']}, {threads}"
    )
    panel.set_xlim(0, 1.15 * longest)
    panel.set_yticks(range(len(order)), [NAMES[name] for name in order])
    panel.invert_yaxis()
    return [bars[True], bars[False], step, span]
