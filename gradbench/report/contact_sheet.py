"""A grid of small pictures: every pixel of an image becomes a square of equal pixels, unblurred."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from gradbench.errors import GradbenchError
from gradbench.report import style

DPI = 200
BOX, LARGEST = 128, 256
"""Pixels up to which the longer side of an image is enlarged, and from which it is reduced."""
MARGIN, GAP, LABEL, WIDEST, NARROWEST = 36, 8, 230, 2600, 900
"""Pixels around everything, between images, for a row's label, and across everything."""
SIZE, LINE, LETTER = 7, 27, 12
"""Points of the letters, and pixels of a line and about of a letter."""
SHAPE = 1.5
"""Width over height that the folding of rows into blocks comes near to."""


class Panel(NamedTuple):
    """An image of a contact sheet: (C, H, W) uint8, C 1 or 3; the caption stressed in colour."""

    pixels: np.ndarray
    caption: str = ""
    stressed: bool = False


class Row(NamedTuple):
    """Panels beside each other, None where there is nothing to show."""

    label: str
    panels: Sequence[Panel | None]


def contact_sheet(
    path: str | Path,
    title: str,
    notes: Sequence[str],
    rows: Sequence[Row],
    headings: Sequence[str] = (),
) -> None:
    """Write a PNG of rows of panels, in one or more blocks beside each other, whole or not at all.

    Args:
        path: of the PNG.
        title: in bold above everything.
        notes: sentences below the title.
        rows: all with equally many panels.
        headings: above the columns of every block.

    Raises:
        GradbenchError: if the picture cannot be written.
    """
    panels = {(r, c): p for r, row in enumerate(rows) for c, p in enumerate(row.panels) if p}
    images = {place: enlarge(panel.pixels) for place, panel in panels.items()}
    high, wide = (max((i.shape[side] for i in images.values()), default=BOX) for side in (0, 1))
    captions = {place: _wrap(panel.caption, wide) for place, panel in panels.items()}
    across, down = wide + GAP, high + max(map(_height, captions.values()), default=0) + GAP
    left = LABEL * any(row.label for row in rows)
    block = left + across * max(len(row.panels) for row in rows) + 3 * GAP
    blocks = int(np.clip(round((SHAPE * len(rows) * down / block) ** 0.5), 1, WIDEST // block or 1))
    each = -(-len(rows) // blocks)
    width = max(-(-len(rows) // each) * block, NARROWEST) + 2 * MARGIN
    head = [_wrap(text, width - 2 * MARGIN) for text in (title, *notes) if text]
    headings = [_wrap(text, across) for text in headings]
    top = MARGIN + sum(map(_height, head)) + max(map(_height, headings), default=0) + GAP
    height = top + each * down + MARGIN
    with style.look():
        figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
        FigureCanvasAgg(figure)

        def write(x: float, y: float, text: str, colour: str, **place: str) -> None:
            figure.text(x / width, 1 - y / height, text, size=SIZE, color=colour, **place)

        y = MARGIN
        for text in head:
            first = y == MARGIN
            colour, weight = (style.INK, "bold") if first else (style.MUTED, "normal")
            write(MARGIN, y, text, colour, va="top", weight=weight)
            y += _height(text)
        for r, row in enumerate(rows):
            x, y = MARGIN + r // each * block + left, top + r % each * down
            label = _wrap(row.label, LABEL)
            write(x - GAP, y + high / 2, label, style.INK, ha="right", va="center")
            for c, text in enumerate(headings if r % each == 0 else ()):
                middle = x + c * across + wide / 2
                write(middle, y - GAP, text, style.INK, ha="center", va="bottom")
            for c in (c for at, c in images if at == r):
                image = np.pad(images[r, c], ((1, 1), (1, 1), (0, 0)), constant_values=217)
                middle = x + c * across + wide // 2
                corner = middle - image.shape[1] // 2, y + (high - image.shape[0]) // 2
                figure.figimage(image, corner[0], height - corner[1] - image.shape[0])
                colour = style.COLOURS[1] if panels[r, c].stressed else style.MUTED
                under = y + high + GAP // 2
                write(middle, under, captions[r, c], colour, ha="center", va="top")
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=DPI, metadata={"Software": None})
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(stream.getvalue())
        os.replace(part, path)
    except OSError as fault:
        part.unlink(missing_ok=True)
        raise GradbenchError(f"cannot write {path}: {fault.strerror}") from fault


def enlarge(pixels: np.ndarray) -> np.ndarray:
    """Return (C, H, W) as (h, w, 3): whole-number nearest neighbour, large ones reduced.

    >>> enlarge(np.zeros((1, 28, 28), np.uint8)).shape
    (112, 112, 3)
    """
    picture = np.ascontiguousarray(
        np.broadcast_to(pixels, (3, *pixels.shape[1:])).transpose(1, 2, 0)
    )
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


def _wrap(text: str, width: float) -> str:
    """Break text into lines of at most so many pixels, about, also after underscores."""
    lines = style.plain(text).replace("_", "_\u200b").split("\n")
    return "\n".join(fill(line, max(4, int(width / LETTER))) for line in lines).replace(
        "\u200b", ""
    )


def _height(text: str) -> int:
    return LINE * (text.count("\n") + 1) if text else 0
