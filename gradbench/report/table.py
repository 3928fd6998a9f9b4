"""A table of texts, and the forms in which it is written: Markdown, plain text, HTML, LaTeX."""

from __future__ import annotations

import html as escaping
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from textwrap import wrap

ALIKE = "≈"
"""Mark of a number that cannot be told from the best one."""
EMPHASIS = re.compile(r"(?<![\w*])\*([^*<>\n]+)\*(?![\w*])")
"""A word between stars, as in Markdown."""
COUNT = re.compile(r"(?<=\d) (?=[a-z])")
FOOTNOTES = re.compile(r" \[([a-z,]+)\]$")
"""References to footnotes, at the end of a cell."""
_LATEX = {
    **{c: f"\\{c}" for c in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"–": "--", "−": "$-$", "≥": r"$\geq$", "≈": r"$\approx$", "→": r"$\to$", "∞": r"$\infty$"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "…": r"\ldots{}", "×": r"$\times$"},
    **{"`": "", "²": r"\textsuperscript{2}", "σ": r"$\sigma$"},
}


@dataclass(frozen=True)
class TextTable:
    """A table whose cells are texts.

    The first word of a cell of numbers is its value; what follows (an interval, a range, footnotes)
    is never marked.

    Attributes:
        header: of the columns.
        rows: cells, as many in each row as in the header.
        labels: columns from the left that hold words; the others hold numbers.
        strong: the best cells, as (row, column).
        alike: cells that cannot be told from the best ones.
        title: heading of the section that the table begins, "" where it continues one.
        text: paragraph above the table.
        reasons: why cells are empty, by the letters in them.
        notes: further list below it.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    labels: int = 1
    strong: frozenset[tuple[int, int]] = frozenset()
    alike: frozenset[tuple[int, int]] = frozenset()
    title: str = ""
    text: str = ""
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def without_empty_columns(self) -> TextTable:
        """Return the table without the columns that are empty in every row."""
        kept = [c for c in range(len(self.header)) if any(row[c] for row in self.rows)]
        return self._select(kept)

    def part(self, start: int, stop: int) -> TextTable:
        """Return the table with all of its words and some of its columns of numbers."""
        return self._select([*range(self.labels), *range(self.labels + start, self.labels + stop)])

    def _select(self, kept: list[int]) -> TextTable:
        place = {column: i for i, column in enumerate(kept)}
        strong, alike = (
            frozenset((r, place[c]) for r, c in marked if c in place)
            for marked in (self.strong, self.alike)
        )
        rows = tuple(tuple(row[c] for c in kept) for row in self.rows)
        labels = sum(c < self.labels for c in kept)
        header = tuple(self.header[c] for c in kept)
        more = {"labels": labels, "strong": strong, "alike": alike}
        return replace(self, header=header, rows=rows, **more)

    def marked(self, best: str, alike: str, other: str = "") -> list[list[str]]:
        """Return the rows with a mark at every value; `{}` in a mark stands for the value."""
        rows = []
        for r, row in enumerate(self.rows):
            cells = list(row)
            for c in range(self.labels, len(cells)):
                value, *rest = cells[c].split(" ", 1)
                mark = best if (r, c) in self.strong else alike if (r, c) in self.alike else other
                cells[c] = " ".join([mark.format(value) if mark else value, *rest])
            rows.append(cells)
        return rows


def markdown(table: TextTable) -> str:
    """Return a Markdown table, padded so that its source can be read too."""
    rows = [[c.replace("|", "\\|") for c in row] for row in table.marked("**{}**", "{}" + ALIKE)]
    rows = [list(table.header), *rows]
    widths = [max(3, *(len(row[c]) for row in rows)) for c in range(len(table.header))]
    lines = [
        [
            cell.ljust(width) if c < table.labels else cell.rjust(width)
            for c, (cell, width) in enumerate(zip(row, widths))
        ]
        for row in rows
    ]
    rule = [
        "-" * width if c < table.labels else "-" * (width - 1) + ":"
        for c, width in enumerate(widths)
    ]
    lines.insert(1, rule)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def plain(table: TextTable, folded: bool = False) -> str:
    """Return aligned plain text; the best values carry a star, those alike a `≈`.

    `folded` breaks headers that are wider than everything below them.
    """
    rows = [[cell.rstrip() for cell in row] for row in table.marked("{}*", "{}" + ALIKE, "{} ")]
    heads = [list(table.header)]
    if folded:
        below = [max((len(row[c]) for row in rows), default=1) for c in range(len(table.header))]
        words = [
            wrap(name, max(width, 1), break_long_words=False) or [""]
            for name, width in zip(table.header, below)
        ]
        tall = max(map(len, words))
        heads = [[w[line] if line < len(w) else "" for w in words] for line in range(tall)]
    widths = [max(len(row[c]) for row in [*heads, *rows]) for c in range(len(table.header))]
    # Cells begin below each other, so that values stay in line whatever follows them.
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths)).rstrip() for row in [*heads, *rows]]
    lines.insert(len(heads), "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def latex_text(text: str) -> str:
    r"""Return a text as LaTeX sets it.

    >>> latex_text("50 % of a_b & c")
    '50 \\% of a\\_b \\& c'
    """
    return "".join(_LATEX.get(sign, sign) for sign in text)


def latex(table: TextTable) -> str:
    """Return a tabular of booktabs; a row whose first cell is filled begins a block."""
    columns = len(table.header)
    lines = [
        f"\\begin{{tabular}}{{{'l' * table.labels}{'r' * (columns - table.labels)}}}",
        r"\toprule",
        " & ".join(map(latex_text, table.header)) + r" \\",
        r"\midrule",
    ]
    for r, row in enumerate(table.rows):
        if r and row[0]:
            lines.append(r"\addlinespace")
        cells = [*map(latex_text, row[: table.labels])]
        for c in range(table.labels, columns):
            value, rest, notes = _split(table, r, c)
            bold = rf"\textbf{{{latex_text(value)}}}" if (r, c) in table.strong else None
            text = " ".join(filter(None, [bold or latex_text(value), latex_text(rest)]))
            cells.append(text + (rf"\textsuperscript{{{notes}}}" if notes else ""))
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


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


def html(table: TextTable, caption: str, joined: int | None = None) -> str:
    """Return a table that scrolls by itself where the page is too narrow for it.

    Words are headers of their rows, and an empty one joins that above.

    Args:
        table: its texts.
        caption: above it, and its name for those who do not see it; a title of its own goes before.
        joined: columns from the left in which an empty word joins; all that hold words by default.
    """
    joined = table.labels if joined is None else joined
    head = "".join(
        f'<th scope="col"{"" if c < table.labels else NUMBER}>{_breakable(name)}</th>'
        for c, name in enumerate(table.header)
    )
    body = "\n".join(
        f"<tr>{''.join(_html_cell(table, r, c, joined) for c in range(len(table.header)))}</tr>"
        for r in range(len(table.rows))
    )
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escaping.escape(caption)}">\n'
        f"<table>\n<caption>{html_text(caption)}</caption>\n<thead><tr>{head}</tr></thead>\n"
        f"<tbody>\n{body}\n</tbody>\n</table>\n</div>"
    )


NUMBER = ' class="number"'


def _breakable(text: str) -> str:
    """Return words as HTML: a name may break after an underscore, a count stays with its word."""
    return COUNT.sub("&nbsp;", html_text(text)).replace("_", "_<wbr>")


def _split(table: TextTable, r: int, c: int) -> tuple[str, str, str]:
    """Return the value of a cell with its mark, what follows it, and its footnotes."""
    text = table.rows[r][c]
    found = FOOTNOTES.search(text)
    value, _, rest = (text[: found.start()] if found else text).partition(" ")
    return value + ALIKE * ((r, c) in table.alike), rest, found[1] if found else ""


def _html_cell(table: TextTable, r: int, c: int, joined: int) -> str:
    if c < table.labels:
        text = table.rows[r][c]
        if not text:
            above = c < joined and any(table.rows[row][c] for row in range(r))
            return "" if above else "<td></td>"
        span = 1
        while c < joined and r + span < len(table.rows) and not table.rows[r + span][c]:
            span += 1
        rows = f' rowspan="{span}"' if span > 1 else ""
        first = "" if c else ' class="first"'
        return f'<th scope="row"{first}{rows}>{_breakable(text)}</th>'
    value, rest, notes = _split(table, r, c)
    shown = f"<strong>{html_text(value)}</strong>" if (r, c) in table.strong else html_text(value)
    note = f" <sup>{notes}</sup>" if notes else ""
    return f"<td{NUMBER}>{' '.join(filter(None, [shown, html_text(rest)]))}{note}</td>"
