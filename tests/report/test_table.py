"""Tables as texts: escaped, balanced, the same cells."""

from dataclasses import replace

from _reported import parsed

from gradbench.report.table import TextTable, html, markdown, plain

GRID = TextTable(
    ("in & out", "", "a_b", "50 %"),
    (
        ("<x>", "published", "1.5", "2"),
        ("", "measured", "97.1 96.0–98.0 [a,b]", "– [c]"),
        ("y", "published", "#3", "4"),
    ),
    labels=2,
    marks={(1, 2): "best", (2, 3): "alike"},
)


def test_markdown_keeps_a_bar_in_a_name_and_marks_values_alone():
    text = markdown(replace(GRID, rows=(*GRID.rows[:2], ("a|b", "", "#3", "4"))))
    assert text.splitlines()[-1].startswith("| a\\|b ")
    assert "| **97.1** 96.0–98.0 [a,b] |" in text
    assert text.splitlines()[-1].endswith(" 4≈ |")


def test_plain_text_keeps_values_in_line():
    lines = plain(GRID).splitlines()
    assert [line[:22] for line in lines[2:4]] == [
        "<x>       published  1",
        "          measured   9",
    ]
    assert "97.1* 96.0–98.0 [a,b]" in lines[3]


def test_empty_columns_go_with_their_marks():
    grid = TextTable(("a", "b", "c"), (("x", "", "1"),), 2, {(0, 2): "best"})
    whole = grid.without_empty_columns()
    assert (whole.header, whole.rows, whole.labels) == (("a", "c"), (("x", "1"),), 1)
    assert whole.marks == {(0, 1): "best"}


def test_a_count_stays_with_its_word_where_a_cell_breaks():
    grid = TextTable(("passes",), (("2 forward, 1 backward",),), labels=1)
    assert "2&nbsp;forward, 1&nbsp;backward" in html(grid, "")


def test_html_is_escaped_and_closed():
    text = html(GRID, "A < B")
    assert "<caption>A &lt; B</caption>" in text
    rows = [[cell.text for cell in row.inside] for row in parsed(text).all("tr")]
    assert rows == [
        ["in & out", "", "a_b", "50 %"],
        ["<x>", "published", "1.5", "2"],
        ["", "measured", "97.1 96.0–98.0 [a,b]", "– [c]"],
        ["y", "published", "#3", "4≈"],
    ]
    assert "<strong>97.1</strong> 96.0–98.0 [a,b]" in text
    assert text.count("<strong>") == 1
