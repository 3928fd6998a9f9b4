"""A paper's table as a document: terminal, Markdown, LaTeX, HTML."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from textwrap import fill as wrap

from gradbench.report import grid
from gradbench.report.grid import ALIKE
from gradbench.report.markup import framed, html, html_text, latex, latex_text
from gradbench.report.papers.conventions import conventions, made_from
from gradbench.report.papers.fill import Filling
from gradbench.report.papers.layout import Notes, Panel, panels
from gradbench.report.papers.verdict import verdict

BOLD = "the best of its group"
NEAR = (
    f"{ALIKE}: not distinguishable from the best: the interval of their difference in the run "
    "holds zero (rows of `auroc_difference`)"
)
WIDTH = 100
"""Columns of a terminal that a table should fit in."""
PAGE = 60
"""Lines of a printed table that leave room for its notes."""


@dataclass(frozen=True)
class Parts:
    """What every form of a table is made of.

    Attributes:
        title: of the table.
        head: conventions, a sentence each.
        panels: its texts.
        verdict: sentences.
        notes: with their letters.
        made: from which runs.
    """

    title: str
    head: list[str]
    panels: list[Panel]
    verdict: list[str]
    notes: list[str]
    made: list[str]


def parts(filling: Filling, own_line: bool = False) -> Parts:
    """Return the parts of a table; `own_line` puts intervals in lines of their own."""
    notes = Notes()
    laid = panels(filling, notes, own_line)
    head = conventions(filling)
    if any(cell.near for cell in filling.cells):
        head.append(f"{NEAR}.")
    table = filling.table
    title = f"{table.name}: {table.title}"
    said = verdict(filling).sentences()
    return Parts(title, head, laid, said, notes.lines(), made_from(filling))


def terminal(filling: Filling, width: int = WIDTH) -> str:
    """Return a table as aligned text, in narrow columns where it would be too wide otherwise."""
    found = parts(filling)
    texts = [grid.plain(panel.grid) for panel in found.panels]
    if _broad(texts) > width:
        found = parts(filling, own_line=True)
        texts = [_in_pieces(panel.grid, width) for panel in found.panels]
    blocks = [
        found.title,
        _wrapped([*found.head, f"*: {BOLD}."], width),
        *(f"{p.title}\n\n{text}" if p.title else text for p, text in zip(found.panels, texts)),
        _wrapped(found.notes, width, bullet=""),
        f"Verdict\n{_wrapped(found.verdict, width)}",
        _wrapped(found.made, width),
    ]
    return "\n\n".join(block for block in blocks if block)


def markdown(filling: Filling) -> str:
    """Return a table as Markdown."""
    found = parts(filling)
    blocks = [
        f"# {found.title}",
        _listed([*found.head, f"Bold: {BOLD}."]),
        *_each(found, lambda panel: grid.markdown(panel.grid), "## {}"),
        _listed(found.notes),
        "## Verdict",
        _listed(found.verdict),
        "## Made from",
        _listed(found.made),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def latex_document(filling: Filling) -> str:
    r"""Return a table environment for a paper; needs `\usepackage{booktabs}`.

    What would be taller than a page is continued in a second environment under the same number,
    and its notes follow as text.
    """
    found = parts(filling)
    pages = _pages(found.panels)
    title = latex_text(found.title)
    notes = _latex_notes(found)
    lines = [f"% {found.title}; needs \\usepackage{{booktabs}}"]
    for place, page in enumerate(pages):
        lines += [r"\begin{table}", r"\centering\scriptsize"]
        if place:
            lines.append(f"\\addtocounter{{table}}{{-1}}\\caption{{{title} (continued)}}")
        else:
            label = filling.table.name.replace("_", "-")
            lines += [f"\\caption{{{title}}}", f"\\label{{tab:{label}}}"]
        for panel in page:
            if panel.title:
                named = latex_text(panel.title)
                lines.append(f"\\par\\smallskip\\textit{{{named}}}\\par\\smallskip")
            lines.append(latex(panel.grid))
        if len(pages) == 1:
            lines += [r"\par\smallskip\raggedright", *notes]
        lines.append(r"\end{table}")
    if len(pages) > 1:
        lines += [r"\begin{flushleft}\scriptsize", *notes, r"\end{flushleft}"]
    return "\n".join(lines) + "\n"


def _pages(panels: list[Panel]) -> list[list[Panel]]:
    """Return the panels of each page, in order; one that is taller than a page stands alone."""
    pages: list[list[Panel]] = []
    room = 0
    for panel in panels:
        rows = len(panel.grid.rows)
        if not pages or rows > room:
            pages.append([])
            room = PAGE
        pages[-1].append(panel)
        room -= rows
    return pages


def _latex_notes(found: Parts) -> list[str]:
    lines = []
    for note in found.notes:
        letter, _, text = note.partition(" ")
        lines.append(f"\\textsuperscript{{{letter[1:-1]}}} {latex_text(text)}.\\par")
    said = [*found.head, f"Bold: {BOLD}.", *found.verdict, *found.made]
    return [*lines, *(f"{latex_text(text)}\\par" for text in said)]


def html_fragment(filling: Filling, level: int = 2) -> str:
    """Return a section element with the table; no style is given.

    Args:
        filling: of the table.
        level: of its heading.
    """
    found = parts(filling)
    title = html_text(found.title)
    tables = [(p.title or found.title, html(p.grid, p.title)) for p in found.panels]
    blocks = [
        f'<section class="paper-table" id="table-{html_text(filling.table.name)}">',
        f"<h{level}>{title}</h{level}>",
        _items([*found.head, f"Bold: {BOLD}."], "conventions"),
        *(framed(table, label) for label, table in tables),
        _items(found.notes, "notes"),
        f"<h{level + 1}>Verdict</h{level + 1}>",
        _items(found.verdict, "verdict"),
        _items(found.made, "runs"),
        "</section>",
    ]
    return "\n".join(block for block in blocks if block) + "\n"


def _broad(texts: list[str]) -> int:
    return max(len(line) for text in texts for line in text.splitlines())


def _in_pieces(whole: grid.Grid, width: int) -> str:
    """Return a table as text, its columns in as many pieces below each other as it takes."""
    count = len(whole.header) - whole.labels
    for pieces in range(1, count + 1):
        ends = [round(count * (i + 1) / pieces) for i in range(pieces)]
        texts = [
            grid.plain(whole.part(start, stop), folded=True)
            for start, stop in zip([0, *ends], ends)
        ]
        if _broad(texts) <= width:
            break
    return "\n\n".join(texts)


def _each(found: Parts, render: Callable[[Panel], str], title: str) -> list[str]:
    """Return the title, where there is one, and the text of every panel."""
    texts = []
    for panel in found.panels:
        texts += [title.format(panel.title)] if panel.title else []
        texts.append(render(panel))
    return texts


def _wrapped(lines: list[str], width: int, bullet: str = "- ") -> str:
    indent = " " * (len(bullet) or 4)
    return "\n".join(wrap(bullet + line, width, subsequent_indent=indent) for line in lines)


def _listed(lines: list[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _items(lines: list[str], kind: str) -> str:
    inside = "".join(f"<li>{html_text(line)}</li>" for line in lines)
    return f'<ul class="{kind}">{inside}</ul>' if lines else ""
