"""Sentences, tables and lists as HTML."""

from __future__ import annotations

import re
from collections.abc import Sequence

from markupsafe import Markup

from gradbench.report.grid import Grid
from gradbench.report.markup import framed, html, html_text
from gradbench.report.section import Block

EMPHASIS = re.compile(r"(?<![\w*])\*([^*<>\n]+)\*(?![\w*])")
"""A word between stars, as in Markdown."""


def prose(text: str) -> Markup:
    """Return a text as HTML: code between back-ticks, emphasis between stars.

    >>> prose("*best* of `a<b`")
    Markup('<em>best</em> of <code>a&lt;b</code>')
    """
    return Markup(EMPHASIS.sub(r"<em>\1</em>", html_text(text)))


def table(grid: Grid, caption: str) -> Markup:
    """Return a table that scrolls by itself where the page is too narrow for it.

    Rows whose first word repeats the one above share it.
    """
    rows, before = [], None
    for row in grid.rows:
        same = grid.labels > 1 and row[0] and row[0] == before
        rows.append(("" if same else row[0], *row[1:]))
        before = row[0]
    shown = Grid(grid.header, tuple(rows), grid.labels, grid.strong, grid.alike)
    return Markup(framed(html(shown, caption, joined=1), caption))


def blocks(found: Sequence[Block], caption: str) -> Markup:
    """Return the blocks of a section; its tables are numbered in their captions where several."""
    several = sum(isinstance(block, Grid) for block in found) > 1
    parts, count = [], 0
    for block in found:
        if isinstance(block, Grid):
            count += 1
            parts.append(table(block, f"{caption}, part {count}" if several else caption))
        elif isinstance(block, tuple):
            items = "".join(f"<li>{prose(item)}</li>" for item in block)
            parts.append(f'<ul class="notes">{items}</ul>' if items else "")
        elif block:
            parts.append(f"<p>{prose(block)}</p>")
    return Markup("\n".join(parts))
