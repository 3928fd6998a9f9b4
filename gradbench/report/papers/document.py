"""A paper's table as a document: terminal, Markdown, LaTeX, HTML."""

from __future__ import annotations

from textwrap import fill as wrap

from gradbench.report import table as writers
from gradbench.report.papers.fill import FilledTable
from gradbench.report.papers.layout import Notes, panels
from gradbench.report.papers.sentences import comparison, conventions, made_from
from gradbench.report.table import ALIKE, html, html_list, html_text, latex, latex_text

NEAR = (
    f"{ALIKE}: not distinguishable from the best: the interval of their difference in the run "
    "holds zero (rows of `auroc_difference`)."
)
WIDTH = 100
"""Columns of a terminal that a table should fit in."""


def terminal(filled: FilledTable, width: int = WIDTH) -> str:
    """Return a table as aligned text, wide panels in pieces below each other."""
    notes = Notes()
    found = panels(filled.table, filled.cells, notes, width)
    blocks = [_title(filled), _wrapped(_head(filled, "*"), width)]
    for title, grids in found.items():
        blocks += [title, *map(writers.plain, grids)]
    blocks += [_wrapped(notes.lines(), width, bullet="")]
    blocks += ["Compared with the print\n" + _wrapped(comparison(filled), width)]
    blocks += [_wrapped(made_from(filled), width)]
    return "\n\n".join(block for block in blocks if block)


def markdown(filled: FilledTable) -> str:
    """Return a table as Markdown."""
    notes = Notes()
    found = panels(filled.table, filled.cells, notes)
    blocks = [f"# {_title(filled)}", _listed(_head(filled))]
    for title, (only,) in found.items():
        blocks += [f"## {title}" * bool(title), writers.markdown(only)]
    blocks += [_listed(notes.lines()), "## Compared with the print", _listed(comparison(filled))]
    blocks += ["## Made from", _listed(made_from(filled))]
    return "\n\n".join(block for block in blocks if block) + "\n"


def latex_document(filled: FilledTable) -> str:
    r"""Return a table environment for each panel; needs `\usepackage{booktabs}`.

    Panels share one number; the notes follow as text.
    """
    notes = Notes()
    title, label = latex_text(_title(filled)), filled.table.name.replace("_", "-")
    lines = [f"% {_title(filled)}; needs \\usepackage{{booktabs}}"]
    for i, (panel, (only,)) in enumerate(panels(filled.table, filled.cells, notes).items()):
        named = f" ({latex_text(panel)})" if panel else ""
        lines += [r"\begin{table}", r"\centering\scriptsize"]
        lines += [r"\addtocounter{table}{-1}"] if i else []
        lines += [f"\\caption{{{title}{named}}}"]
        lines += [] if i else [f"\\label{{tab:{label}}}"]
        lines += [latex(only), r"\end{table}"]
    lines.append(r"\begin{flushleft}\scriptsize")
    for note in notes.lines():
        letter, _, text = note.partition(" ")
        lines.append(f"\\textsuperscript{{{letter[1:-1]}}} {latex_text(text)}.\\par")
    sentences = [*_head(filled), *comparison(filled), *made_from(filled)]
    lines += [f"{latex_text(text)}\\par" for text in sentences]
    return "\n".join([*lines, r"\end{flushleft}"]) + "\n"


def html_fragment(filled: FilledTable, level: int = 2) -> str:
    """Return a section element with the table; no style is given.

    Args:
        filled: the table.
        level: of its heading.
    """
    notes = Notes()
    title = _title(filled)
    blocks = [
        f'<section class="paper-table" id="table-{html_text(filled.table.name)}">',
        f"<h{level}>{html_text(title)}</h{level}>",
        html_list(_head(filled), "conventions"),
    ]
    for panel, (only,) in panels(filled.table, filled.cells, notes).items():
        blocks.append(html(only, panel or title))
    blocks += [
        html_list(notes.lines(), "notes"),
        f"<h{level + 1}>Compared with the print</h{level + 1}>",
        html_list(comparison(filled), "verdict"),
        html_list(made_from(filled), "runs"),
        "</section>",
    ]
    return "\n".join(block for block in blocks if block) + "\n"


def _title(filled: FilledTable) -> str:
    return f"{filled.table.name}: {filled.table.title}"


def _head(filled: FilledTable, best: str = "Bold") -> list[str]:
    near = [NEAR] if filled.cells["near_best"].eq("yes").any() else []
    return [*conventions(filled), *near, f"{best}: the best of its group."]


def _wrapped(lines: list[str], width: int, bullet: str = "- ") -> str:
    indent = " " * (len(bullet) or 4)
    return "\n".join(wrap(bullet + line, width, subsequent_indent=indent) for line in lines)


def _listed(lines: list[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
