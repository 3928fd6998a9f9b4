"""The picture that the papers open with: what the gradients of each layer look like."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from gradbench.report import style
from gradbench.report.stages import Stage, stages

MANY = 100
"""With more tensors than this, lines are thin and have no dots."""
LETTER = 0.062
"""Inches that a letter of a stage's name takes."""


def profile(
    path: str | Path, title: str, names: Sequence[str], means: Mapping[str, np.ndarray]
) -> None:
    """Draw the mean squared gradient norm of each parameter tensor, a line per set of images.

    The upper panel shows the means, the lower one divides them by those of the first set. Sets
    whose names differ in a level alone (`gaussian_noise 3`) share a colour, the lowest level the
    palest.

    Args:
        path: of the PNG.
        title: of the figure.
        names: of the d parameter tensors, in the order of the network.
        means: (d,) by set, the in-distribution set first: it is drawn strongest.

    Raises:
        GradbenchError: if the picture cannot be written.
    """
    many = len(names) > MANY
    looks = [_strongest(many), *_looks(list(means)[1:], many)]
    lines = [np.asarray(values, dtype=float) for values in means.values()]
    x = np.arange(1, len(names) + 1)
    size = (style.WIDTH, 2.1)
    with style.drawing(path, title, min(2, len(lines)), size, list(means)) as (panels, handles):
        for panel, below in zip(panels, (1.0, lines[0])):
            for values, look in zip(lines, looks):
                with np.errstate(divide="ignore", invalid="ignore"):
                    shown = values / below
                shown[~(np.isfinite(shown) & (shown > 0))] = np.nan  # zero has no logarithm
                panel.plot(x, shown, marker="none" if many else "o", mec="none", **look)
            panel.set_yscale("log")
            panel.yaxis.set_major_formatter(style.Powers())
            panel.yaxis.set_minor_formatter(style.Powers())
            panel.set_xlim(0.3, len(names) + 0.7)
            panel.xaxis.set_major_locator(MaxNLocator(12, integer=True))
            panel.grid(axis="y")
            _mark_stages(panel, stages(names), len(names), named=panel is panels[0])
        panels[0].set_ylabel("mean squared norm")
        if len(panels) > 1:
            panels[1].set_ylabel(style.plain(f"relative to {next(iter(means))}"))
            _plain_ticks(panels[1])
        panels[-1].set_xlabel("parameter tensor, from input to output")
        handles += [Line2D([], [], **look) for look in looks]


def _plain_ticks(panel: Axes) -> None:
    """Write ratios as 0.5, 1, 2 where they lie within two decades, else as powers of ten alone."""
    low, high = panel.get_ylim()
    narrow = high / low < 100
    panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if narrow else (1,)))
    panel.yaxis.set_minor_locator(NullLocator())
    panel.yaxis.set_major_formatter("{x:g}")


def _strongest(many: bool) -> dict:
    """Return the look of the in-distribution set: a bold line behind the others."""
    return {"color": style.INK, "lw": 1.2 if many else 2.6, "ms": 4.2, "zorder": 1.5}


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
        looks.append(look | {"lw": 0.6 if many else 1.1, "ms": 2.4, "zorder": 2})
    return looks


def _mark_stages(panel: Axes, found: Sequence[Stage], count: int, named: bool) -> None:
    """Mark where stages begin, and if wanted name those whose names find room above the panel."""
    scale = count / (0.9 * style.WIDTH)  # tensors in an inch
    taken: list[tuple[float, float]] = []
    for stage in sorted(found, key=lambda stage: stage.first - stage.last):
        if stage.first:
            panel.axvline(stage.first + 0.5, color=style.MUTED, lw=0.6, ls=(0, (2, 2)), zorder=1)
        half = LETTER * len(stage.name) / 2 * scale
        middle = (stage.first + stage.last) / 2 + 1
        middle = min(max(middle, half), count + 1 - half)
        if not named or any(
            middle - half < right and middle + half > left for left, right in taken
        ):
            continue
        taken.append((middle - half, middle + half))
        panel.annotate(
            style.plain(stage.name),
            (middle, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            size=7,
            color=style.MUTED,
        )
