"""The figures of a run: scores, ROC curves, gradient profiles, levels, transfer, costs.

Each function writes a PNG to a path or stream, and raises a GradbenchError if it cannot.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import groupby
from os.path import commonprefix
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from gradbench.report import style
from gradbench.run.rows import NO_LEVEL

Pair = tuple[np.ndarray, np.ndarray]
"""Scores of normal and of abnormal images."""
Folds = Pair | list[Pair]
"""One pair, or one for each fold, whose scores are of differently fitted detectors."""
Target = str | Path | IO[bytes]
"""Where a picture is written."""
BINS = 40
CROWDED = 50
"""Percent of the images of one side in one bin, from which the axis is logarithmic."""
TAIL = 0.005
"""Share of the images of either side that may lie in the outermost bins."""
MANY = 100
"""With more parameter tensors than this, lines are thin and have no dots."""
SMALL, MOST_STAGES = 0.06, 12
"""Stages with a smaller share of the tensors are joined; more of them are not told apart by eye."""


def histograms(path: Target, title: str, scores: Mapping[str, Folds]) -> None:
    """Draw the scores of normal and abnormal images, a panel per challenge.

    `scores` are by challenge, higher = more abnormal; of several folds, all together. Bars are
    shares of each side's images, on a logarithmic axis where half a side falls into one bin
    (saturated scores). The range leaves out the outermost 0.5 % of either side; they are counted
    in the outermost bins.
    """
    sides = dict(zip(("normal", "abnormal"), style.COLOURS))
    with style.drawing(path, title, len(scores), (1.8, 1.35), list(sides)) as (panels, handles):
        tallest = 0.0
        for panel, (challenge, folds) in zip(panels, scores.items()):
            pair = [np.concatenate(side) for side in zip(*_as_list(folds))]
            edges = _edges(pair)
            for values, colour in zip(pair, sides.values()):
                count = np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0]
                share = 100 * count / len(values)
                tallest = max(tallest, share.max())
                panel.stairs(share, edges, fill=True, color=colour, alpha=0.35, lw=0)
                panel.stairs(share, edges, color=colour, lw=0.9)
            panel.set_title(style.plain(challenge))
            panel.set_xlim(edges[0], edges[-1])
            panel.set_ylim(bottom=0)
            panel.xaxis.set_major_locator(MaxNLocator(4))
            panel.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 4, 5, 10]))
        if tallest > CROWDED:
            for panel in panels:
                panel.set_yscale("log", nonpositive="clip")
                panel.set_ylim(0.1, 130)
                panel.set_yticks([0.1, 1, 10, 100], ["0.1", "1", "10", "100"])
        style.outer_labels(panels, "score (high = abnormal)", "images, %")
        for colour in sides.values():
            handles.append(Patch(facecolor=style.paler(colour, 0.65), edgecolor=colour, lw=0.9))


def roc(path: Target, title: str, scores: Mapping[str, Mapping[str, Folds]]) -> None:
    """Draw true against false positive rate, a panel per challenge and a line per detector.

    Abnormal is positive. Of several folds, the true positive rates are averaged at each false
    positive rate.
    """
    looks = style.line_styles(name for lines in scores.values() for name in lines)
    with style.drawing(path, title, len(scores), (1.8, 1.95), list(looks)) as (panels, handles):
        for panel, (challenge, lines) in zip(panels, scores.items()):
            panel.plot([0, 100], [0, 100], color=style.FAINT, lw=0.8, zorder=0)
            for name, folds in lines.items():
                false, true = roc_curve(_as_list(folds))
                panel.plot(100 * false, 100 * true, **looks[name])
            panel.set_title(style.plain(challenge))
            panel.set(xlim=(-2.5, 102.5), ylim=(-2.5, 102.5), aspect="equal")
            panel.set(xticks=(0, 50, 100), yticks=(0, 50, 100))
        style.outer_labels(panels, "normal flagged, %", "abnormal flagged, %")
        handles += [Line2D([], [], **look) for look in looks.values()]


def label(metric: str) -> str:
    """Return how a metric is called in pictures and tables, such as AUROC, accuracy."""
    return metric.replace("_", " ") if len(metric) > 5 else metric.upper()


def levels(path: Target, title: str, frame: pd.DataFrame, metric: str = "auroc") -> int:
    """Draw a metric against the level of a challenge, a panel per family and a line per method.

    `frame` holds rows of a run; challenges with two or more levels are drawn. The band is the
    interval; with several networks the line is their mean and the band their range.

    Returns:
        The number of panels; without any, nothing is written.
    """
    rows = frame[(frame["metric"] == metric) & (frame["fold"] == "all") & frame["value"].notna()]
    rows = rows[rows["role"].isin(["main", "transfer"]) & (rows["level"] != NO_LEVEL)]
    rows = rows.assign(level=rows["level"].astype(int))
    several = rows.groupby("challenge", sort=False)["level"].nunique()
    families = list(several[several > 1].index)
    rows = rows[rows["challenge"].isin(families)]
    if not families:
        return 0
    looks = style.line_styles(rows["method"])
    low, high = rows[["value", "lo"]].min().min(), rows[["value", "hi"]].max().max()
    chance = metric == "auroc"
    limits = min(48, low - 2) if chance else max(-2, low - 5), min(102, high + 5)
    with style.drawing(path, title, len(families), (1.8, 1.5), list(looks)) as (panels, handles):
        for panel, family in zip(panels, families):
            for place, (name, look) in enumerate(looks.items()):
                own = rows[(rows["challenge"] == family) & (rows["method"] == name)]
                of_level = own.groupby("level")
                value = of_level["value"].mean()
                networks = own["train_seed"].nunique() > 1
                low = of_level["value" if networks else "lo"].min()
                high = of_level["value" if networks else "hi"].max()
                look |= {"marker": style.MARKERS[place % 7], "ms": 3, "mec": "none"}
                panel.fill_between(value.index, low, high, color=look["color"], alpha=0.2, lw=0)
                panel.plot(value.index, value, **look)
            if chance:
                panel.axhline(50, color=style.FAINT, lw=0.8, zorder=0)
            panel.set_title(style.plain(family))
            panel.set_ylim(*limits)
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
            panel.yaxis.set_major_locator(MaxNLocator(4))
        style.outer_labels(panels, "level", f"{label(metric)}, %")
        handles += [Line2D([], [], **look) for look in looks.values()]
    return len(families)


def heat_map(path: Target, title: str, table: pd.DataFrame, same: pd.DataFrame) -> None:
    """Draw AUROC in percent of one detector, fitted on the rows and measured on the columns.

    Blue lies above chance, orange below; NaN is left empty. Framed is where `same` says that both
    are the same challenge, measured on other images.
    """
    values = table.to_numpy(float)
    size = (1.5 + 0.5 * values.shape[1], 0.9 + 0.25 * len(values))
    with style.drawing(path, title, 1, size) as ((panel,), _):
        map_of = LinearSegmentedColormap.from_list(
            "transfer", [style.COLOURS[1], "#ffffff", style.COLOURS[0]]
        )
        panel.imshow(values, cmap=map_of, vmin=0, vmax=100, aspect="auto")
        for (r, c), value in np.ndenumerate(values):
            if np.isfinite(value):
                dark = abs(value - 50) > 30
                look = {"ha": "center", "va": "center", "color": "white" if dark else style.INK}
                panel.text(c, r, f"{value:.1f}", **look)
            if same.iat[r, c]:
                corner = (c - 0.46, r - 0.43)
                frame = Rectangle(corner, 0.92, 0.86, fill=False, lw=1)
                panel.add_patch(frame)
        names = [style.plain(name) for name in table.columns]
        panel.set_xticks(range(len(names)), names, rotation=35, ha="right")
        panel.set_yticks(range(len(table)), [style.plain(name) for name in table.index])
        panel.tick_params(length=0)
        panel.set(xlabel="measured on", ylabel="fitted on")


def costs(path: Target, title: str, points: Mapping[str, pd.DataFrame]) -> None:
    """Draw AUROC against the milliseconds that an image takes, a panel per challenge.

    `points` has a row per detector: `ms`, `auroc`, `low`, `high`, `named`; the others are grey.
    """
    with style.drawing(path, title, len(points), (3.5, 2.5)) as (panels, _):
        for panel, (challenge, found) in zip(panels, points.items()):
            for name, one in found.iterrows():
                colour = style.COLOURS[0] if one["named"] else style.MUTED
                panel.plot([one["ms"]] * 2, [one["low"], one["high"]], color=colour, lw=0.8)
                panel.plot(one["ms"], one["auroc"], "o", color=colour, ms=3.5)
                if one["named"]:
                    place = {"xytext": (4, 2), "textcoords": "offset points", "size": 6}
                    panel.annotate(style.plain(name), (one["ms"], one["auroc"]), **place)
            panel.set_title(style.plain(challenge))
            panel.set_xscale("log")
            panel.margins(x=0.2)
            _plain_ticks(panel, "x")
        style.outer_labels(panels, "milliseconds per image", "AUROC, %")


def profile(path: Target, title: str, names: Sequence[str], means: Mapping[str, np.ndarray]):
    """Draw the mean squared gradient norm of each parameter tensor, a line per set of images.

    The upper panel shows the means, the lower one divides them by those of the first set. Sets
    whose names differ in a level alone (`gaussian_noise 3`) share a colour, the lowest level the
    palest.

    Args:
        path: of the PNG, or a stream.
        title: of the figure.
        names: of the d parameter tensors, in the order of the network.
        means: (d,) by set, the in-distribution set first: it is drawn strongest.
    """
    many = len(names) > MANY
    first = {"color": style.INK, "lw": 1.2 if many else 2.6, "ms": 4.2, "zorder": 1.5}
    looks = [first, *_profile_looks(list(means)[1:], many)]
    lines = [np.asarray(values, dtype=float) for values in means.values()]
    x = np.arange(1, len(names) + 1)
    size = (style.WIDTH, 2.1)
    with style.drawing(path, title, min(2, len(lines)), size, list(means)) as (panels, handles):
        for panel, below in zip(panels, (1.0, lines[0])):
            for values, look in zip(lines, looks):
                with np.errstate(divide="ignore", invalid="ignore"):
                    ratio = values / below
                ratio[~(np.isfinite(ratio) & (ratio > 0))] = np.nan  # zero has no logarithm
                panel.plot(x, ratio, marker="none" if many else "o", mec="none", **look)
            panel.set_yscale("log")
            _plain_ticks(panel, "y")
            panel.set_xlim(0.3, len(names) + 0.7)
            panel.xaxis.set_major_locator(MaxNLocator(12, integer=True))
            panel.grid(axis="y")
            for stage in stages(names)[1:]:
                panel.axvline(stage.first + 0.5, color=style.MUTED, lw=0.6, ls=(0, (2, 2)))
        for stage in stages(names):
            middle, look = (stage.first + stage.last) / 2 + 1, {"size": 6, "color": style.MUTED}
            place = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
            text = style.plain(stage.name)[: max(3, 110 * (stage.last - stage.first + 1) // len(x))]
            panels[0].annotate(text, (middle, 1.0), xytext=(0, 3), ha="center", **place, **look)
        panels[0].set_ylabel("mean squared norm")
        if len(panels) > 1:
            panels[1].set_ylabel(style.plain(f"relative to {next(iter(means))}"))
        panels[-1].set_xlabel("parameter tensor, from input to output")
        handles += [Line2D([], [], **look) for look in looks]


class Stage(NamedTuple):
    """A run of parameter tensors, with the places of its first and last."""

    name: str
    first: int
    last: int


def stages(names: Sequence[str]) -> list[Stage]:
    """Return the stages of a network, worked out from the names of its parameters.

    Stages are the outermost modules, or those within where a single one holds nearly everything.
    Small ones next to each other are joined.

    >>> [s.name for s in stages(["net.conv1.weight", "net.bn1.weight", "net.bn1.bias", "net.fc.w"])]
    ['conv1', 'bn1', 'fc']
    >>> stages(["a.0.w", "a.1.w", "b.w"])[0]
    Stage(name='a', first=0, last=1)
    """
    shared = commonprefix([name.split(".") for name in names])
    paths = [name.split(".")[len(shared) :][:-1] or [name] for name in names]
    outer, inner = [], []
    for depth, found in ((1, outer), (2, inner)):
        for key, members in groupby(range(len(paths)), key=lambda i: paths[i][:depth]):
            places = list(members)
            found.append(Stage(key[-1], places[0], places[-1]))
    one_holds_all = max(s.last - s.first + 1 for s in outer) > 0.8 * len(names)
    joined: list[Stage] = []
    for stage in inner if one_holds_all and len(inner) <= MOST_STAGES else outer:
        pair = [*joined[-1:], stage]
        if len(pair) > 1 and all(s.last - s.first + 1 < SMALL * len(names) for s in pair):
            before = joined.pop()
            start = before.name.split(", ")[0]
            stage = Stage(f"{start}, {stage.name}", before.first, stage.last)
        joined.append(stage)
    return joined


def roc_curve(folds: Sequence[Pair]) -> tuple[np.ndarray, np.ndarray]:
    """Return false and true positive rates; of one fold exactly, of several averaged."""
    curves = []
    for normal, abnormal in folds:
        values = np.unique(np.concatenate([normal, abnormal]))[::-1]
        flagged = [
            1 - np.searchsorted(np.sort(side), values, side="left") / len(side)
            for side in (normal, abnormal)
        ]
        curves.append(tuple(np.concatenate([[0.0], rates]) for rates in flagged))
    if len(curves) == 1:
        return curves[0]
    # Curves step where several images share a false positive rate: ask closely at both sides.
    steps = np.unique(np.concatenate([false for false, _ in curves]))
    at = np.unique(np.clip([steps - 1e-9, steps + 1e-9], 0, 1))
    return at, np.mean([np.interp(at, *curve) for curve in curves], axis=0)


def _as_list(folds: Folds) -> list[Pair]:
    return folds if isinstance(folds, list) else [folds]


def _edges(pair: Sequence[np.ndarray]) -> np.ndarray:
    finite = [side[np.isfinite(side)] for side in pair]
    low = min(np.quantile(side, TAIL) for side in finite)
    high = max(np.quantile(side, 1 - TAIL) for side in finite)
    if low == high:
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, BINS + 1)


def _plain_ticks(panel: Axes, which: str) -> None:
    """Write a logarithmic axis as 0.5, 1, 2 within two decades, else by powers of ten alone."""
    low, high = getattr(panel, f"get_{which}lim")()
    axis = getattr(panel, f"{which}axis")
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 100 else (1,)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter("{x:g}")


def _profile_looks(names: Sequence[str], many: bool) -> list[dict]:
    """Return the looks of lines, the levels of a family as shades of one colour."""
    family = [re.sub(r" \d+$", "", name) for name in names]
    order, looks = list(dict.fromkeys(family)), []
    for place, name in enumerate(family):
        members = [i for i, other in enumerate(family) if other == name]
        i = order.index(name)
        faded = 0.75 * (1 - (members.index(place) + 1) / len(members))
        colour = style.paler(style.COLOURS[i % len(style.COLOURS)], faded)
        dashes = style.DASHES[i % len(style.DASHES)]
        looks.append({"color": colour, "dashes": dashes, "lw": 0.6 if many else 1.1, "ms": 2.4})
    return looks
