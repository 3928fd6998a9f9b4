"""What documents are made of: sentences, tables and lists, in sections."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from gradbench.report.grid import Grid

Block = str | Grid | tuple[str, ...]
"""A paragraph, a table, or the items of a list."""


class Section(NamedTuple):
    """A part of a document under a title of its own."""

    title: str
    blocks: tuple[Block, ...]


def texts(blocks: Sequence[Block], render: Callable[[Grid], str]) -> list[str]:
    """Return blocks as plain text or Markdown, empty ones left away.

    Args:
        blocks: in their order.
        render: writes a table.
    """
    found = []
    for block in blocks:
        if isinstance(block, Grid):
            found.append(render(block))
        elif isinstance(block, tuple):
            found.append("\n".join(f"- {item}" for item in block))
        else:
            found.append(block)
    return [text for text in found if text]
