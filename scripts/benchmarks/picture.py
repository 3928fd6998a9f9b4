"""Draws results/bench/ratios.png: time of the engine and of others, from the CSVs of engine.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import harness
import pandas as pd
from matplotlib.axes import Axes

from gradbench.errors import GradbenchError
from gradbench.report import style

NAMES = {
    "forward": "forward alone",
    "engine": "gradbench",
    "backpack": "BackPACK",
    "vmap": "vmap(grad)",
    "pytorch_ood": "pytorch-ood",
    "loop": "one image at a time",
}
"""Contenders in the order in which they are drawn, and what they are called."""


def read_table(path: Path) -> pd.DataFrame:
    """Return the contenders that were measured, by name; nothing unless the engine and others."""
    table = pd.read_csv(path).dropna(subset=["ratio"]).set_index("contender")
    found = table.loc[[name for name in NAMES if name in table.index]]
    return found if "engine" in found.index and len(found) > 1 else found.iloc[:0]


def draw(tables: Sequence[pd.DataFrame], path: Path) -> None:
    """Draw one panel per table: a bar per contender, the ordinary step a line at one."""
    title = "Gradient norms of all layers, image by image: time beside one forward and backward"
    names = ["gradbench", "others", "forward + backward of the batch", "smallest to largest round"]
    size = (style.WIDTH / 2, 0.5 + 0.19 * max(map(len, tables)))
    with style.drawing(path, title, len(tables), size, names) as (panels, handles):
        for panel, table in zip(panels, tables):
            handles[:] = _draw_panel(panel, table)
        style.outer_labels(panels, "time / (forward + backward)", "")


def _draw_panel(panel: Axes, table: pd.DataFrame) -> list:
    """Draw the bars of one condition; return the handles of the legend."""
    bars, longest = {}, table["ratio_high"].max()
    for place, (name, row) in enumerate(table.iterrows()):
        own = name == "engine"
        colour = style.COLOURS[0] if own else style.FAINT
        bars[own] = panel.barh(place, row["ratio"], 0.7, color=colour)
        span = [row["ratio_low"], row["ratio_high"]]
        (line,) = panel.plot(span, [place, place], color=style.INK, linewidth=0.8)
        end = max(row["ratio"], row["ratio_high"]) + 0.02 * longest
        panel.text(end, place, f"{row['ratio']:.2f}", va="center")
    step = panel.axvline(1, color=style.COLOURS[1], linewidth=1)
    first = table.iloc[0]
    panel.set_title(
        f"{first['backbone'].removeprefix('torchvision:')}, {first['batch']} images of "
        f"{first['image_size']} px, {first['device']}, {first['threads']} "
        f"thread{'s' if first['threads'] > 1 else ''}"
    )
    panel.set_xlim(0, 1.15 * longest)
    panel.set_yticks(range(len(table)), [NAMES[name] for name in table.index])
    panel.invert_yaxis()
    return [bars[True], bars[False], step, line]


def main() -> None:
    """Draw the picture."""
    folder = harness.options_parser(__doc__, ()).parse_args().out
    tables = [
        table for path in sorted(folder.glob("engine-*.csv")) if len(table := read_table(path))
    ]
    if not tables:
        raise GradbenchError(f"there is no engine-*.csv in {folder}: engine.py writes one")
    draw(tables, folder / "ratios.png")


if __name__ == "__main__":
    harness.main_of(main)
