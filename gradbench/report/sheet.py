"""Sheets of small pictures: every pixel of an image becomes a square of equal pixels, unblurred."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from gradbench.errors import GradbenchError
from gradbench.report import style
from gradbench.report.lettering import BODY, HEAD, SMALL, Lettering

DPI = 200
MARGIN, GAP, TRENCH = 36, 8, 56
"""Pixels around everything, between panels, and between blocks of rows."""
BOX, LARGEST = 128, 256
"""Pixels up to which the longer side of a panel is enlarged, and from which it is reduced."""
WIDEST = 2600
"""Pixels across beyond which rows are not folded into further blocks."""
SHAPE = 1.5
"""Width over height that the folding comes near to."""
EMPTY = 1.0
"""Weight of unfilled places in the last block."""
LABEL = 230
"""Pixels of the longest line of a row's label."""
NARROWEST = 820
"""Pixels across, so that notes find room."""


@dataclass(frozen=True)
class Panel:
    """One image of a sheet.

    Attributes:
        pixels: (C, H, W) uint8, C 1 or 3.
        caption: below it.
        stressed: the caption is coloured.
    """

    pixels: np.ndarray
    caption: str = ""
    stressed: bool = False


@dataclass(frozen=True)
class Row:
    """Panels beside each other, None where there is nothing to show."""

    label: str
    panels: Sequence[Panel | None]


@dataclass
class Layout:
    """Where things go, in pixels from the upper left corner.

    Attributes:
        size: width and height of everything.
        boxes: (row, column) -> x, y, width, height of a panel.
        texts: x, y, text, size, horizontal and vertical alignment, colour.
    """

    size: tuple[int, int]
    boxes: dict[tuple[int, int], tuple[int, int, int, int]] = field(default_factory=dict)
    texts: list[tuple] = field(default_factory=list)


def sheet(
    path: str | Path,
    title: str,
    notes: Sequence[str],
    rows: Sequence[Row],
    headings: Sequence[str] = (),
) -> Layout:
    """Write a PNG of rows of panels, in one or more blocks beside each other.

    Args:
        path: of the PNG, which appears there whole or not at all.
        title: in bold above everything.
        notes: sentences below the title.
        rows: all with equally many panels.
        headings: above the columns of every block.

    Returns:
        Where each panel stands.

    Raises:
        GradbenchError: if the picture cannot be written.
    """
    title, *notes = map(style.plain, (title, *notes))
    headings = [style.plain(text) for text in headings]
    rows = [_plain(row) for row in rows]
    drawn = {
        (i, j): enlarged(panel.pixels)
        for i, row in enumerate(rows)
        for j, panel in enumerate(row.panels)
        if panel is not None
    }
    with style.look():
        found = _fold(_Content(title, notes, rows, headings, drawn))
        write(path, _paint(found, drawn))
    return found


def _plain(row: Row) -> Row:
    """Return a row whose texts can be drawn."""
    panels = [p and replace(p, caption=style.plain(p.caption)) for p in row.panels]
    return Row(style.plain(row.label), panels)


def enlarged(pixels: np.ndarray) -> np.ndarray:
    """Return (C, H, W) as (h, w, 3): whole-number nearest neighbour, large ones reduced.

    >>> enlarged(np.zeros((1, 28, 28), np.uint8)).shape
    (112, 112, 3)
    """
    picture = np.repeat(pixels, 3, axis=0) if len(pixels) == 1 else pixels
    picture = np.ascontiguousarray(picture.transpose(1, 2, 0))
    longest = max(picture.shape[:2])
    if longest > LARGEST:
        height, width = (max(round(side * LARGEST / longest), 1) for side in picture.shape[:2])
        whole = Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS)
        return np.asarray(whole)
    factor = max(BOX // longest, 1)
    return picture.repeat(factor, axis=0).repeat(factor, axis=1)


def magnification(shape: Sequence[int]) -> str:
    """Say how images of a shape (C, H, W) are drawn.

    >>> magnification((3, 32, 32)), magnification((3, 200, 200))
    ('32x32, each pixel drawn as 4x4', '200x200')
    """
    size, longest = f"{shape[2]}x{shape[1]}", max(shape[1:])
    factor = BOX // longest
    if longest > LARGEST:
        return f"{size}, reduced"
    return f"{size}, each pixel drawn as {factor}x{factor}" if factor > 1 else size


def write(path: str | Path, pixels: np.ndarray) -> None:
    """Write (H, W, 3) as PNG beside its place, then rename it there.

    Raises:
        GradbenchError: if it cannot be written.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=4)
    try:
        part.write_bytes(stream.getvalue())
        os.replace(part, path)
    except OSError as fault:
        part.unlink(missing_ok=True)
        raise GradbenchError(f"cannot write {path}: {fault.strerror}") from fault


def _fold(content: _Content) -> Layout:
    """Return the layout whose blocks come nearest to the wanted proportions and are filled."""
    best, least = None, np.inf
    count = len(content.rows)
    for blocks in range(1, count + 1):
        each = -(-count // blocks)
        found = _arrange(content, each)
        if best is not None and found.size[0] > WIDEST:
            break
        off = abs(np.log(found.size[0] / found.size[1] / SHAPE))
        off += EMPTY * (-(-count // each) * each - count) / count
        if off < least:
            best, least = found, off
    return best


def _arrange(content: _Content, each: int) -> Layout:
    """Lay out the rows in blocks of so many."""
    starts = range(0, len(content.rows), each)
    labels = [content.label_width(first, each) for first in starts]
    width = sum(labels) + len(starts) * content.panels_width + TRENCH * (len(starts) - 1)
    width = max(width, min(content.letters.width(content.title, HEAD), WIDEST), NARROWEST)
    found = Layout((width + 2 * MARGIN, 0))
    y = _write_head(found, content, width)
    heads = max((content.letters.height(text, BODY) for text in content.headings), default=0)
    x, lowest = MARGIN, 0
    for first, label in zip(starts, labels):
        content.put_headings(found, x + label, y + heads - GAP // 2)
        lowest = max(lowest, content.put_rows(found, range(first, first + each), x + label,
                                              y + heads))  # fmt: skip
        x += label + content.panels_width + TRENCH
    found.size = (width + 2 * MARGIN, lowest + MARGIN)
    return found


def _write_head(found: Layout, content: _Content, width: int) -> int:
    """Put title and notes, and return where the blocks begin."""
    y = MARGIN
    notes = [(note, BODY, style.MUTED) for note in content.notes if note]
    for text, size, colour in [(content.title, HEAD, style.INK), *notes]:
        lines = content.letters.wrapped(text, width, size)
        found.texts.append((MARGIN, y, lines, size, "left", "top", colour))
        y += content.letters.height(lines, size)
    return y + 2 * GAP


class _Content:
    """What a sheet shows, measured.

    Args:
        title: of the sheet.
        notes: below it.
        rows: of panels.
        headings: of the columns.
        drawn: (row, column) -> (h, w, 3) pixels.
    """

    def __init__(self, title, notes, rows, headings, drawn):
        self.letters = Lettering(DPI)
        self.title, self.notes, self.rows, self.drawn = title, notes, rows, drawn
        across: dict[int, int] = {}
        self.high = [BOX] * len(rows)
        for row in range(len(rows)):
            mine = [d.shape[0] for (i, _), d in drawn.items() if i == row]
            self.high[row] = max(mine, default=BOX)
        for (_, j), pixels in drawn.items():
            across[j] = max(across.get(j, 0), pixels.shape[1])
        self.across = [across.get(j, BOX) for j in range(max(len(r.panels) for r in rows))]
        self.panels_width = sum(self.across) + GAP * (len(self.across) - 1)
        self.labels = [self.letters.wrapped(row.label, LABEL, BODY) for row in rows]
        self.headings = [
            self.letters.wrapped(text, width + GAP, BODY)
            for text, width in zip(headings, self.across)
        ]

    def label_width(self, first: int, each: int) -> int:
        """Return the pixels that the labels of a block take, with the space behind them."""
        widest = max(self.letters.width(text, BODY) for text in self.labels[first : first + each])
        return widest + 2 * GAP if widest else 0

    def put_headings(self, found: Layout, x: int, y: int) -> None:
        """Put the headings of a block whose panels begin at x, standing on y."""
        for text, width in zip(self.headings, self.across):
            middle = x + width // 2
            found.texts.append((middle, y, text, BODY, "center", "bottom", style.INK))
            x += width + GAP

    def put_rows(self, found: Layout, rows: range, left: int, y: int) -> int:
        """Put the rows of a block from y downwards, and return where they end."""
        for i in rows[: max(len(self.rows) - rows.start, 0)]:
            middle = y + self.high[i] // 2
            found.texts.append(
                (left - 2 * GAP, middle, self.labels[i], BODY, "right", "center", style.INK)
            )
            x, below = left, 0
            for j, panel in enumerate(self.rows[i].panels):
                if panel is not None:
                    high, across = self.drawn[i, j].shape[:2]
                    place = x + (self.across[j] - across) // 2, middle - high // 2
                    found.boxes[i, j] = (*place, across, high)
                    below = max(below, self._put_caption(found, panel, i, j, x, y))
                x += self.across[j] + GAP
            y += self.high[i] + below + GAP
        return y - GAP

    def _put_caption(self, found: Layout, panel: Panel, i: int, j: int, x: int, y: int) -> int:
        if not panel.caption:
            return 0
        text = self.letters.wrapped(panel.caption, self.across[j] + GAP // 2, SMALL)
        colour = style.COLOURS[1] if panel.stressed else style.MUTED
        at = x + self.across[j] // 2, y + self.high[i] + GAP // 2
        found.texts.append((*at, text, SMALL, "center", "top", colour))
        return self.letters.height(text, SMALL) + GAP // 2


def _paint(found: Layout, drawn: dict[tuple[int, int], np.ndarray]) -> np.ndarray:
    """Draw the text, then put the panels into the pixels with a hairline around each."""
    width, height = found.size
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    canvas = FigureCanvasAgg(figure)
    letters = Lettering(DPI)
    for x, y, text, size, across, down, colour in found.texts:
        weight = "bold" if size == HEAD else "normal"
        for at, line in letters.baselines(text, size, y, down):
            figure.text(x / width, 1 - round(at) / height, line, size=size, weight=weight,
                        color=colour, ha=across, va="baseline", parse_math=False)  # fmt: skip
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[:, :, :3].copy()
    line = tuple(int(style.FAINT[i : i + 2], 16) for i in (1, 3, 5))
    for key, (x, y, across, high) in found.boxes.items():
        pixels[y - 1 : y + high + 1, x - 1 : x + across + 1] = line
        pixels[y : y + high, x : x + across] = drawn[key]
    return pixels
