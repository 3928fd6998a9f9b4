"""Tables as LaTeX and HTML: escaped, balanced, the same cells."""

import re
from html.parser import HTMLParser

import pytest

from gradbench.report.table import TextTable, html, latex, latex_text, plain

GRID = TextTable(
    ("in & out", "", "a_b", "50 %"),
    (
        ("<x>", "published", "1.5", "2"),
        ("", "measured", "97.1 96.0–98.0 [a,b]", "– [c]"),
        ("y", "published", "#3", "4"),
    ),
    labels=2,
    strong=frozenset({(1, 2)}),
)


def test_latex_is_escaped_and_balanced():
    text = latex(GRID)
    lines = text.splitlines()
    assert lines[0] == r"\begin{tabular}{llrr}"
    assert lines[1:4] == [r"\toprule", r"in \& out &  & a\_b & 50 \% \\", r"\midrule"]
    assert r"\textless{}x\textgreater{} & published & 1.5 & 2 \\" in lines
    assert r" & measured & \textbf{97.1} 96.0--98.0\textsuperscript{a,b} & " in text
    assert r"--\textsuperscript{c} \\" in text
    assert lines[-3:] == [r"y & published & \#3 & 4 \\", r"\bottomrule", r"\end{tabular}"]
    rows = [line for line in lines if line.endswith(r"\\")]
    assert all(len(re.findall(r"(?<!\\)&", row)) == 3 for row in rows)
    assert text.count("{") == text.count("}")


@pytest.mark.parametrize("sign", list("&%$#_{}~^\\"))
def test_signs_that_mean_something_to_latex_are_escaped(sign):
    assert re.fullmatch(r"a\\.+b", latex_text(f"a{sign}b"))


class Reader(HTMLParser):
    """Checks that elements close in turn, and gathers what stands in them."""

    def __init__(self):
        super().__init__()
        self.open, self.cells, self.spans = [], [], []

    def handle_starttag(self, tag, attrs):
        if tag == "wbr":  # it holds nothing, so it is not closed
            return
        self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")
            self.spans.append(int(dict(attrs).get("rowspan", 1)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.cells[-1] += data


def read(text):
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    return reader


def test_a_count_stays_with_its_word_where_a_cell_breaks():
    grid = TextTable(("passes",), (("2 forward, 1 backward",),), labels=1)
    assert "2&nbsp;forward, 1&nbsp;backward" in html(grid, "")


def test_html_is_escaped_and_closed():
    text = html(GRID, "A < B")
    reader = read(text)
    assert "<caption>A &lt; B</caption>" in text
    assert reader.cells == [
        *("in & out", "", "a_b", "50 %"),
        *("<x>", "published", "1.5", "2"),
        *("measured", "97.1 96.0–98.0 a,b", "– c"),  # the empty label is that above
        *("y", "published", "#3", "4"),
    ]
    assert reader.spans[4] == 2
    assert "<strong>97.1</strong> 96.0–98.0 <sup>a,b</sup>" in text
    assert text.count("<strong>") == 1


def test_every_row_of_html_is_as_wide_as_the_header():
    reader = read(html(GRID, "a"))
    assert sum(reader.spans) == 4 * len(GRID.header)


def test_long_headers_fold_and_parts_keep_their_words():
    grid = TextTable(
        ("x", "Long name (P)", "b"), (("r", "1.0", "2.0 [a]"),), 1, frozenset({(0, 2)})
    )
    lines = plain(grid, folded=True).splitlines()
    assert lines[:3] == ["x  Long  b", "   name", "   (P)"]
    assert plain(grid).splitlines()[0] == "x  Long name (P)  b"
    part = grid.part(1, 2)
    assert (part.header, part.rows) == (("x", "b"), (("r", "2.0 [a]"),))
    assert part.strong == {(0, 1)}
