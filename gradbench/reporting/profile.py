"""The picture that the papers open with: what the gradients of each layer look like."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from gradbench.reporting import style
from gradbench.reporting.stages import Stage, stages

MANY = 100
"""With more tensors than this, lines are thin and have no dots."""
LETTER = 0.062
"""Inches that a letter of a stage's name takes."""


def profile(
    path: str | Path, title: str, names: Sequence[str], means: Mapping[str, np.ndarray]
) -> None:
    """Draw the mean squared gradient norm of each parameter tensor, a line per set of images.

    Sets whose names differ in a level alone (`gaussian_noise 3`) share a colour, the lowest level
    the palest.

    Args:
        path: of the PNG.
        title: of the figure.
        names: of the d parameter tensors, in the order of the network.
        means: (d,) by set, the in-distribution set first: it is drawn strongest.

    Raises:
        GradbenchError: if the picture cannot be written.
    """
    many = len(names) > MANY
    looks = _looks(list(means)[1:], many)
    first = {"color": style.INK, "lw": 1.0 if many else 2.2, "ms": 3.6, "zorder": 3}
    with style.drawing(path, title, 1, (style.WIDTH, 2.9), list(means)) as ((panel,), handles):
        x = np.arange(1, len(names) + 1)
        for values, look in zip(means.values(), [first, *looks]):
            shown = np.where(np.asarray(values) > 0, values, np.nan)  # zero has no logarithm
            panel.plot(x, shown, marker="none" if many else "o", mec="none", **look)
            handles.append(Line2D([], [], **look))
        panel.set_yscale("log")
        panel.set(xlim=(0.3, len(names) + 0.7), xlabel="parameter tensor, from input to output")
        panel.set_ylabel("mean squared gradient norm")
        panel.xaxis.set_major_locator(MaxNLocator(12, integer=True))
        panel.grid(axis="y")
        _mark_stages(panel, stages(names), len(names))


def _looks(names: Iterable[str], many: bool) -> list[dict]:
    """Return the looks of lines, levels of a family as shades of one colour."""
    names = list(names)
    family = [re.sub(r" \d+$", "", name) for name in names]
    order = list(dict.fromkeys(family))
    looks = []
    for place, name in enumerate(family):
        look = style.line_style(order.index(name))
        members = [i for i, other in enumerate(family) if other == name]
        faded = 0.75 * (1 - (members.index(place) + 1) / len(members))
        look["color"] = style.paler(look["color"], faded)
        looks.append(look | {"lw": 0.6 if many else 1.0, "ms": 2.2, "zorder": 2})
    return looks


def _mark_stages(panel: Axes, found: Sequence[Stage], count: int) -> None:
    """Mark where stages begin, and name above the panel those whose names find room."""
    scale = count / (0.9 * style.WIDTH)  # tensors in an inch
    taken: list[tuple[float, float]] = []
    for stage in sorted(found, key=lambda stage: stage.first - stage.last):
        if stage.first:
            panel.axvline(stage.first + 0.5, color=style.MUTED, lw=0.6, ls=(0, (2, 2)), zorder=1)
        half = LETTER * len(stage.name) / 2 * scale
        middle = (stage.first + stage.last) / 2 + 1
        middle = min(max(middle, half), count + 1 - half)
        if any(middle - half < right and middle + half > left for left, right in taken):
            continue
        taken.append((middle - half, middle + half))
        panel.annotate(
            stage.name,
            (middle, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            size=7,
            color=style.MUTED,
        )
