"""The look shared by all figures, and how they are written: equal input gives equal bytes."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from gradbench.errors import GradbenchError, printable

INK, MUTED, FAINT = "#1a1a1a", "#5f6368", "#d9dbde"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5195")
"""Okabe and Ito (2008), told apart with any colour vision, and one more."""
DASHES = ((None, None), (5, 1.5), (1.5, 1.2), (6, 1.5, 1.5, 1.5))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
WIDTH, NARROWEST = 7.2, 3.4
"""Inches: the text width of a page, and the width of a column."""
LETTER = 0.053
"""Inches that a letter of a legend takes, about."""
RC = {
    "font.family": "DejaVu Sans",
    "font.size": 7.5,
    "axes.titlesize": 8,
    "axes.titlelocation": "left",
    "axes.titlepad": 4,
    "axes.labelsize": 7.5,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "text.color": INK,
    "text.parse_math": False,  # a name is no formula
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "ytick.minor.size": 0,
    "grid.color": FAINT,
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.3,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "legend.handlelength": 2.4,
    "figure.titlesize": 9.5,
    "figure.titleweight": "bold",
}


@contextmanager
def look() -> Iterator[None]:
    """Draw in the look of all figures."""
    with matplotlib.style.context(["default", RC]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+")  # letters of other scripts become boxes
        yield


def plain(text: str) -> str:
    """Return text as it can be drawn, line by line; what is no sign is escaped."""
    return "\n".join(map(printable, text.split("\n")))


def line_styles(names: Iterable[str]) -> dict[str, dict]:
    """Return colour and dashes of each line, the same in every figure that has the same lines."""
    return {
        name: {"color": COLOURS[i % len(COLOURS)], "dashes": DASHES[i % len(DASHES)]}
        for i, name in enumerate(sorted(set(names)))
    }


def paler(colour: str, share: float) -> str:
    """Return a colour moved towards white, all the way for a share of 1."""
    parts = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(part + (255 - part) * share):02x}" for part in parts)


@contextmanager
def drawing(
    path: str | Path | IO[bytes],
    title: str,
    panels: int,
    size: tuple[float, float],
    names: Sequence[str] = (),
) -> Iterator[tuple[list[Axes], list]]:
    """Give panels to draw in and a list for the legend's handles; write a PNG on leaving.

    As many of the panels, each of a size in inches, stand in a row as a page is wide. Below the
    title stands a legend of the names.

    Raises:
        GradbenchError: if the picture cannot be written.
    """
    columns = min(panels, max(1, int(WIDTH / size[0])))
    rows = -(-panels // columns)
    width = max(NARROWEST, columns * size[0], min(WIDTH, 0.09 * len(title)))
    longest = max(map(len, names), default=0)
    across = max(1, int(width / (0.5 + LETTER * longest)))
    if sum(0.5 + LETTER * len(name) for name in names) < width:
        across = max(1, len(names))
    top = 0.34 + 0.17 * -(-len(names) // across)
    with look():
        figure = Figure(figsize=(width, rows * size[1] + top), layout="constrained")
        FigureCanvasAgg(figure)
        height = figure.get_figheight()
        figure.get_layout_engine().set(rect=(0, 0, 1, 1 - top / height), w_pad=0.05, h_pad=0.05)
        place = {"x": 0.06 / width, "y": 1 - 0.07 / height, "ha": "left", "va": "top"}
        figure.suptitle(plain(title), **place)
        handles: list = []
        yield [figure.add_subplot(rows, columns, i + 1) for i in range(panels)], handles
        corner = (0.03 / width, 1 - 0.24 / height)
        if handles:
            shape = {"loc": "upper left", "bbox_to_anchor": corner, "ncols": across}
            figure.legend(handles, [plain(name) for name in names], **shape, labelspacing=0.35)
        try:
            figure.savefig(path, format="png", dpi=200, metadata={"Software": None})
        except OSError as fault:
            raise GradbenchError(f"cannot write {path}: {fault.strerror}") from fault


def outer_labels(panels: Sequence[Axes], x: str, y: str) -> None:
    """Label the axes once: y at the left panels, x below the lowest of each column."""
    columns = panels[0].get_gridspec().ncols
    for place, panel in enumerate(panels):
        if place % columns == 0:
            panel.set_ylabel(y)
        if place + columns >= len(panels):
            panel.set_xlabel(x)
