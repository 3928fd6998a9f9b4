"""A table of texts, and the forms in which it is written: Markdown, plain text, HTML."""

from __future__ import annotations

import html as escaping
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

ALIKE = "≈"
"""Mark of a number that cannot be told from the best one."""
EMPHASIS = re.compile(r"(?<![\w*])\*([^*<>\n]+)\*(?![\w*])")
"""A word between stars, as in Markdown."""
COUNT = re.compile(r"(?<=\d) (?=[a-z])")
NUMBER = ' class="number"'


@dataclass(frozen=True)
class TextTable:
    """A table whose cells are texts, as many in each row as in the header.

    The first word of a cell of numbers is its value; what follows (an interval, a range, footnotes)
    is never marked.

    Attributes:
        labels: columns from the left that hold words; the others hold numbers.
        marks: `best`, or `alike` where it cannot be told from the best, by (row, column).
        title: heading of the section that the table begins, "" where it continues one.
        text: paragraph above the table.
        reasons: why cells are empty, by the letters in them.
        notes: further list below it.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    labels: int = 1
    marks: Mapping[tuple[int, int], str] = field(default_factory=dict)
    title: str = ""
    text: str = ""
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def without_empty_columns(self) -> TextTable:
        """Return the table without the columns that are empty in every row."""
        filled = [c for c in range(len(self.header)) if any(row[c] for row in self.rows)]
        marks = {(r, filled.index(c)): m for (r, c), m in self.marks.items() if c in filled}
        header, *rows = (tuple(row[c] for c in filled) for row in (self.header, *self.rows))
        labels = sum(c < self.labels for c in filled)
        return replace(self, header=header, rows=tuple(rows), labels=labels, marks=marks)

    def marked(self, **forms: str) -> list[list[str]]:
        """Return the rows with every value in the form of its mark (`best`, `alike`, `plain`)."""
        rows = [list(row) for row in self.rows]
        for r, row in enumerate(rows):
            for c in range(self.labels, len(row)):
                value, *rest = row[c].split(" ", 1)
                form = forms[self.marks.get((r, c), "plain")]
                row[c] = " ".join([form.format(value), *rest])
        return rows


def markdown(table: TextTable) -> str:
    """Return a Markdown table, padded so that its source can be read too."""
    rows = table.marked(best="**{}**", alike="{}" + ALIKE, plain="{}")
    rows = [list(table.header), *([c.replace("|", "\\|") for c in row] for row in rows)]
    widths = [max(3, *map(len, column)) for column in zip(*rows)]
    lines = [
        [cell.ljust(w) if c < table.labels else cell.rjust(w) for c, (cell, w) in line]
        for line in (enumerate(zip(row, widths)) for row in rows)
    ]
    rule = ["-" * w if c < table.labels else "-" * (w - 1) + ":" for c, w in enumerate(widths)]
    lines.insert(1, rule)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def plain(table: TextTable) -> str:
    """Return aligned plain text; the best values carry a star, those alike a `≈`."""
    rows = table.marked(best="{}*", alike="{}" + ALIKE, plain="{} ")
    rows = [list(table.header), *([cell.rstrip() for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*rows)]
    # Cells begin below each other, so that values stay in line whatever follows them.
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def html_text(text: str) -> str:
    """Return a text as HTML shows it: code between back-ticks, emphasis between stars.

    >>> html_text("*best* of `a<b`")
    '<em>best</em> of <code>a&lt;b</code>'
    """
    code = re.sub(r"`([^`]+)`", r"<code>\1</code>", escaping.escape(text))
    return EMPHASIS.sub(r"<em>\1</em>", code)


def html_list(lines: Sequence[str], kind: str = "notes") -> str:
    """Return a list of sentences as HTML, "" for none."""
    items = "".join(f"<li>{html_text(line)}</li>" for line in lines)
    return f'<ul class="{kind}">{items}</ul>' if items else ""


def html(table: TextTable, caption: str) -> str:
    """Return a table, words as headers of their rows, that scrolls by itself where it is too wide.

    The caption is also its name for those who do not see it.
    """
    head = "".join(
        f'<th scope="col"{"" if c < table.labels else NUMBER}>{_breakable(name)}</th>'
        for c, name in enumerate(table.header)
    )
    lines = []
    for r, row in enumerate(table.rows):
        cells = []
        for c, text in enumerate(row):
            if c >= table.labels:
                value, *rest = html_text(text).split(" ", 1)
                forms = {"best": f"<strong>{value}</strong>", "alike": value + ALIKE}
                value = forms.get(table.marks.get((r, c)), value)
                cells.append(f"<td{NUMBER}>{' '.join([value, *rest])}</td>")
            elif text:
                first = "" if c else ' class="first"'
                cells.append(f'<th scope="row"{first}>{_breakable(text)}</th>')
            else:
                cells.append("<td></td>")
        lines.append(f"<tr>{''.join(cells)}</tr>")
    body = "\n".join(lines)
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escaping.escape(caption)}">\n'
        f"<table>\n<caption>{html_text(caption)}</caption>\n<thead><tr>{head}</tr></thead>\n"
        f"<tbody>\n{body}\n</tbody>\n</table>\n</div>"
    )


def _breakable(text: str) -> str:
    """Return words as HTML: a name may break after an underscore, a count stays with its word."""
    return COUNT.sub("&nbsp;", html_text(text)).replace("_", "_<wbr>")
