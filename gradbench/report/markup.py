"""Tables of texts as LaTeX and as HTML."""

from __future__ import annotations

import html as escaping
import re
from collections.abc import Sequence

from gradbench.report.grid import ALIKE, Grid

COUNT = re.compile(r"(?<=\d) (?=[a-z])")
MARK = re.compile(r" (\[[a-z,]+\])$")
"""A reference to foot-notes, at the end of a cell."""
_LATEX = {
    **{c: f"\\{c}" for c in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"–": "--", "−": "$-$", "≥": r"$\geq$", "≈": r"$\approx$", "→": r"$\to$", "∞": r"$\infty$"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "…": r"\ldots{}", "×": r"$\times$"},
    **{"`": "", "²": r"\textsuperscript{2}", "σ": r"$\sigma$"},
}


def latex_text(text: str) -> str:
    r"""Return a text as LaTeX sets it.

    >>> latex_text("50 % of a_b & c")
    '50 \\% of a\\_b \\& c'
    """
    return "".join(_LATEX.get(sign, sign) for sign in text)


def latex(grid: Grid) -> str:
    """Return a tabular in the manner of booktabs; a row whose first cell is filled begins a block.

    Needs the package booktabs. A header may not break: it is set in a box of several lines.
    """
    columns = len(grid.header)
    lines = [
        f"\\begin{{tabular}}{{{'l' * grid.labels}{'r' * (columns - grid.labels)}}}",
        r"\toprule",
        " & ".join(map(latex_text, grid.header)) + r" \\",
        r"\midrule",
    ]
    for r, row in enumerate(grid.rows):
        if r and row[0]:
            lines.append(r"\addlinespace")
        lines.append(" & ".join(_latex_cell(grid, r, c) for c in range(columns)) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


def html_text(text: str) -> str:
    """Return a text as HTML shows it; what stands between back-ticks is code.

    >>> html_text("a < b, `x`")
    'a &lt; b, <code>x</code>'
    """
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escaping.escape(text))


def html(grid: Grid, caption: str = "", joined: int | None = None) -> str:
    """Return a table element; words are headers of their rows, and an empty one joins that above.

    Numbers are of class `number`, words of the first column `first`, cells that stand out are
    `strong`, references to foot-notes `sup`. No style is given.

    Args:
        grid: its texts.
        caption: above it, "" for none.
        joined: columns from the left in which an empty word joins; all that hold words by default.
    """
    joined = grid.labels if joined is None else joined
    head = "".join(_html_head(grid, c) for c in range(len(grid.header)))
    lines = ["<table>", f"<caption>{html_text(caption)}</caption>" if caption else ""]
    lines += [f"<thead><tr>{head}</tr></thead>", "<tbody>"]
    for r in range(len(grid.rows)):
        cells = "".join(_html_cell(grid, r, c, joined) for c in range(len(grid.header)))
        lines.append(f"<tr>{cells}</tr>")
    return "\n".join(line for line in [*lines, "</tbody>", "</table>"] if line)


def framed(table: str, label: str) -> str:
    """Return a table that scrolls by itself where the page is too narrow for it."""
    named = escaping.escape(label)
    return f'<div class="scroll" role="region" tabindex="0" aria-label="{named}">\n{table}\n</div>'


def _html_head(grid: Grid, c: int) -> str:
    kind = "" if c < grid.labels else ' class="number"'
    return f'<th scope="col"{kind}>{_breakable(grid.header[c])}</th>'


def _breakable(text: str) -> str:
    """Return words as HTML: a name may break after an underscore, a count stays with its word."""
    return COUNT.sub("&nbsp;", html_text(text)).replace("_", "_<wbr>")


def _split(text: str) -> tuple[str, str, str]:
    """Return the first word of a cell, what follows it, and the reference to foot-notes."""
    found = MARK.search(text)
    mark = found[1] if found else ""
    first, _, rest = (text[: found.start()] if found else text).partition(" ")
    return first, rest, mark


def _latex_cell(grid: Grid, r: int, c: int) -> str:
    text = grid.rows[r][c]
    if c < grid.labels:
        return latex_text(text)
    first, rest, mark = _split(text)
    first = latex_text(first + ALIKE if (r, c) in grid.alike else first)
    parts = [rf"\textbf{{{first}}}" if (r, c) in grid.strong else first, latex_text(rest)]
    return " ".join(filter(None, parts)) + (f"\\textsuperscript{{{mark[1:-1]}}}" if mark else "")


def _html_cell(grid: Grid, r: int, c: int, joined: int) -> str:
    text = grid.rows[r][c]
    if c < grid.labels:
        if not text and c < joined and _joins(grid, r, c):
            return ""
        if not text:
            return "<td></td>"
        span = _span(grid.rows, r, c) if c < joined else 1
        rows = f' rowspan="{span}"' if span > 1 else ""
        first = "" if c else ' class="first"'
        return f'<th scope="row"{first}{rows}>{_breakable(text)}</th>'
    first, rest, mark = _split(text)
    first = html_text(first + ALIKE if (r, c) in grid.alike else first)
    parts = [f"<strong>{first}</strong>" if (r, c) in grid.strong else first, html_text(rest)]
    note = f" <sup>{mark[1:-1]}</sup>" if mark else ""
    return f'<td class="number">{" ".join(filter(None, parts))}{note}</td>'


def _joins(grid: Grid, r: int, c: int) -> bool:
    return any(grid.rows[above][c] for above in range(r))


def _span(rows: Sequence[Sequence[str]], r: int, c: int) -> int:
    """Return how many rows a label stands for: those below it that are empty."""
    count = 1
    while r + count < len(rows) and not rows[r + count][c]:
        count += 1
    return count
