"""The pictures of one run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from gradbench.protocols.base import RANDOM
from gradbench.report import style
from gradbench.report.profile import profile
from gradbench.run.rows import NO_LEVEL

__all__ = ["histograms", "levels", "profile", "roc"]

Pair = tuple[np.ndarray, np.ndarray]
"""Scores of normal and of abnormal images."""
Folds = Pair | list[Pair]
"""One pair, or one for each fold, whose scores are of differently fitted detectors."""
BINS = 40
CROWDED = 50
"""Percent of the images of one side in one bin."""
TAIL = 0.005
"""Share of the images on either side that may lie in the outermost bins."""


def histograms(path: str | Path, title: str, scores: Mapping[str, Folds]) -> None:
    """Draw the scores of normal and abnormal images, a panel per challenge.

    Bars are shares of each side's images, on a logarithmic axis where half a side falls into one
    bin (saturated scores). The range leaves out the outermost 0.5 % of either side; they are
    counted in the outermost bins.

    Args:
        path: of the PNG.
        title: of the figure, naming the detector.
        scores: by challenge, higher = more abnormal; of several folds, all together.

    Raises:
        GradbenchError: if the picture cannot be written.
    """
    sides = {"normal": style.COLOURS[0], "abnormal": style.COLOURS[1]}
    size = (1.8, 1.35)
    with style.drawing(path, title, len(scores), size, list(sides)) as (panels, handles):
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


def roc(path: str | Path, title: str, scores: Mapping[str, Mapping[str, Folds]]) -> None:
    """Draw true against false positive rate, a panel per challenge and a line per detector.

    Of several folds, the true positive rates are averaged at each false positive rate.

    Args:
        path: of the PNG.
        title: of the figure.
        scores: by challenge and detector; abnormal is positive.

    Raises:
        GradbenchError: if the picture cannot be written.
    """
    looks = _looks(name for lines in scores.values() for name in lines)
    with style.drawing(path, title, len(scores), (1.8, 1.95), list(looks)) as (panels, handles):
        for panel, (challenge, lines) in zip(panels, scores.items()):
            panel.plot([0, 100], [0, 100], color=style.FAINT, lw=0.8, zorder=0)
            for name, folds in lines.items():
                false, true = _curve(_as_list(folds))
                panel.plot(100 * false, 100 * true, **looks[name])
            panel.set_title(style.plain(challenge))
            panel.set(xlim=(-2.5, 102.5), ylim=(-2.5, 102.5), aspect="equal")
            panel.set(xticks=(0, 50, 100), yticks=(0, 50, 100))
        style.outer_labels(panels, "normal flagged, %", "abnormal flagged, %")
        handles += [Line2D([], [], **look) for look in looks.values()]


def levels(path: str | Path, title: str, frame: pd.DataFrame) -> None:
    """Draw AUROC against the level of a challenge, a panel per family and a line per detector.

    The band is the interval; with several networks the line is their mean and the band their range.

    Args:
        path: of the PNG.
        title: of the figure.
        frame: rows of a run; those of AUROC with a level are drawn, without the random split
            beside another one.

    Raises:
        GradbenchError: if the picture cannot be written.
    """
    rows = frame[(frame["metric"] == "auroc") & (frame["fold"] == "all")]
    rows = rows[rows["level"] != NO_LEVEL]
    torn = rows["protocol"].str.endswith(RANDOM)
    rows = rows[(~torn | torn.all()) & (rows["challenge_set"] != "control")]
    rows = rows.assign(level=rows["level"].astype(int))
    looks = _looks(rows["method"])
    families = list(dict.fromkeys(rows["challenge"]))
    low, high = rows[["value", "lo"]].min().min(), rows[["value", "hi"]].max().max()
    limits = min(48, low - 2), min(102, high + 5)
    with style.drawing(path, title, len(families), (1.8, 1.5), list(looks)) as (panels, handles):
        for panel, family in zip(panels, families):
            for place, (name, look) in enumerate(looks.items()):
                own = rows[(rows["challenge"] == family) & (rows["method"] == name)]
                by_level = own.groupby("level")
                value = by_level["value"].mean()
                several = own["train_seed"].nunique() > 1
                low = by_level["value" if several else "lo"].min()
                high = by_level["value" if several else "hi"].max()
                look["marker"], look["ms"], look["mec"] = style.MARKERS[place % 7], 3, "none"
                panel.fill_between(value.index, low, high, color=look["color"], alpha=0.2, lw=0)
                panel.plot(value.index, value, **look)
            panel.axhline(50, color=style.FAINT, lw=0.8, zorder=0)
            panel.set_title(style.plain(family))
            panel.set_ylim(*limits)
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
            panel.yaxis.set_major_locator(MaxNLocator(4))
        style.outer_labels(panels, "level", "AUROC, %")
        handles += [Line2D([], [], **look) for look in looks.values()]


def _as_list(folds: Folds) -> list[Pair]:
    return folds if isinstance(folds, list) else [folds]


def _edges(pair: Sequence[np.ndarray]) -> np.ndarray:
    finite = [side[np.isfinite(side)] for side in pair]
    low = min(np.quantile(side, TAIL) for side in finite)
    high = max(np.quantile(side, 1 - TAIL) for side in finite)
    if low == high:
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, BINS + 1)


def _curve(folds: Sequence[Pair]) -> tuple[np.ndarray, np.ndarray]:
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
    at = np.unique(np.concatenate([false for false, _ in curves]))
    low, high = np.mean([_limits(at, *curve) for curve in curves], axis=0)
    return np.repeat(at, 2), np.stack([low, high], axis=1).ravel()


def _limits(at: np.ndarray, false: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Return the lowest and the highest true rate at each false rate; they differ at steps."""
    low, high = (np.interp(at, false, true) for _ in range(2))
    own = np.isin(at, false)
    low[own] = true[np.searchsorted(false, at[own], side="left")]
    high[own] = true[np.searchsorted(false, at[own], side="right") - 1]
    return np.stack([low, high])


def _looks(names: Iterable[str]) -> dict[str, dict]:
    """Return the look of each detector's line, the same in every figure of a run."""
    names = list(dict.fromkeys(names))
    place = {name: i for i, name in enumerate(sorted(names))}
    return {name: style.line_style(place[name]) for name in names}
