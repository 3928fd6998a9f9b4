"""Rendered tables: every form says the same, and `check_results` finds what was changed."""

import csv
import re
from io import StringIO

import pytest
from _made_runs import measured, own_table, write_run

from gradbench.report.papers import check, document, tidy
from gradbench.report.papers.fill import fill
from gradbench.report.papers.runs import find_runs
from gradbench.report.papers.spec import read_table, table_files
from gradbench.report.published import NAMING

RUN = [
    measured("svhn", "msp", 91.0, source="part", note="1,083 of 73,257 images", n_abnormal=1083),
    measured("svhn", "gradient", 99.7),
    measured("tiny_imagenet", "msp", 85.8, source="regenerated"),
    measured("tiny_imagenet", "gradient", 90.9, source="regenerated"),
    measured("svhn", "msp", 88.0, "detection_accuracy", threshold_rule="best", half=0),
    measured("svhn", "msp", 99.0, "aupr", side="in", half=0),
    measured("svhn", "msp", 41.6, "aupr", side="out", half=0),
    measured("svhn", "msp", 86.4, "aupr_balanced", side="out", half=0),
]


@pytest.fixture
def ood(tmp_path, monkeypatch):
    """The table `ood`, filled from a run in results/run; the working folder is its root."""
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "results" / "run", RUN, width=32)
    return fill(read_table("ood"), find_runs([tmp_path.joinpath("results").relative_to(tmp_path)]))


def test_the_terminal_is_no_wider_than_asked(ood):
    for width in (80, 100, 160):
        assert max(map(len, document.terminal(ood, width).splitlines())) <= width


def test_columns_stand_in_pieces_where_all_of_them_are_too_wide(ood):
    text = document.terminal(ood, 60)
    assert max(map(len, text.splitlines())) <= 60
    for name in ("Baseline", "ODIN", "Ours"):
        assert len(re.findall(rf" {name}\b", text)) >= 3


@pytest.mark.parametrize(
    "render",
    [document.terminal, document.markdown, document.latex_document, document.html_fragment],
)
def test_every_form_says_all(ood, render):
    text = " ".join(re.sub(r"<[^>]+>|\\_", "_", render(ood)).split())
    for said in ("99.84", "91.0", "+2.7", "width 32 instead of 64", "1,083", "Made from", "msp"):
        assert said in text, said
    assert "Verdict" in text or "cells measured" in text
    assert "method not built: " in text or "not run: " in text


def test_conventions_stand_above_the_numbers(ood):
    text = document.markdown(ood)
    head = text[: text.index("## Detection accuracy")]
    for said in (
        "Units: percent",
        "at the best threshold for these very images",
        "normal images as positive (in), abnormal ones (out)",
        "Protocol: grouped",
        "10000 : 1083 (svhn)",
        "Baseline is `msp`, supervision none: sees nothing of the challenge",
        "Ours is `gradient`, supervision training",
        "test accuracy 95.0 %",
    ):
        assert said in " ".join(head.split()), said


def test_latex_is_a_whole_environment(ood):
    text = document.latex_document(ood)
    assert text.count(r"\begin{") == text.count(r"\end{") == 4
    assert text.count("{") == text.count("}")
    assert not re.search(r"(?<!\\)%", text.split("\n", 1)[1])
    assert not re.search(r"(?<![\\])_", text.split("\n", 1)[1])
    assert text.isascii()


@pytest.mark.parametrize("name", table_files())
def test_every_table_is_written_in_every_form(name):
    filling = fill(read_table(name), [])
    assert max(map(len, document.terminal(filling).splitlines())) <= 100
    latex = document.latex_document(filling)
    assert latex.isascii()
    assert latex.count("{") == latex.count("}")
    assert latex.count(r"\label{") == 1
    for page in latex.split(r"\begin{table}")[1:]:
        assert page.count(r"\begin{tabular}") == 1 or page.count(r"\\") < 90
    assert document.html_fragment(filling).count("<table>") == len(document.parts(filling).panels)
    for text in (document.markdown(filling), document.html_fragment(filling)):
        assert all(cell.wanted.printed.value in text for cell in filling.cells)


def lines(filling):
    return list(csv.DictReader(StringIO(tidy.tidy([filling]))))


def test_the_csv_holds_every_cell_and_where_it_is_from(ood):
    found = lines(ood)
    assert len({tuple(line[n] for n in NAMING) for line in found}) == 90
    assert len(found) == 92  # one cell has three sides
    (line,) = [x for x in found if x["measured"] == "91.0"]
    assert (line["published"], line["difference"]) == ("88.30", "2.7")
    assert (line["lo"], line["hi"]) == ("90.0", "92.0")
    assert (line["run"], line["our_challenge"]) == ("results/run", "svhn")
    assert {x["line"] for x in found if x["metric"] == "aupr"} == {"in", "out", "balanced", ""}
    assert all(x["measured"] or x["reason"] for x in found)


def test_equal_cells_give_equal_bytes(ood):
    again = fill(read_table("ood"), find_runs([ood.runs[0].path.parent]))
    for render in (document.terminal, document.markdown, lambda f: tidy.tidy([f])):
        assert render(ood) == render(again)


@pytest.fixture
def written(ood, tmp_path):
    (tmp_path / "results" / "tables").mkdir()
    path = tmp_path / "results" / "tables" / "ood.csv"
    path.write_text(tidy.tidy([ood]))
    path.with_suffix(".md").write_text(document.markdown(ood))
    return path


def test_written_tables_pass(written, tmp_path):
    assert check.is_table(written)
    assert not check.is_table(tmp_path / "results" / "run" / "results.csv")
    count, faults = check.check(written, tmp_path)
    assert faults == []
    assert count > 200


@pytest.mark.parametrize(
    ("ending", "right", "wrong", "said"),
    [
        (".csv", ",88.30,", ",88.40,", "88.40 was not published"),
        (".csv", ",91.0,", ",91.1,", "measured 91.1 is not in results/run"),
        (".csv", ",90.0,", ",90.5,", "lo 90.5 is not in results/run"),
        (".csv", ",2.7,", ",2.9,", "difference 2.9 is not in results/run"),
        (".csv", "results/run", "results/ran", "measured 88.0 is not in results/ran"),
        (".md", "88.30", "88.40", "88.40 (CIFAR-10, SVHN, Baseline, published)"),
        (".md", "91.0 90.0", "91.1 90.0", "91.1 (CIFAR-10, SVHN, Baseline, measured)"),
        (".md", "90.0–92.0", "90.0–93.0", "93.0 (CIFAR-10, SVHN, Baseline, measured)"),
        (".md", "+2.7", "−2.7", "−2.7 (CIFAR-10, SVHN, Baseline, difference)"),
        (".md", "41.6", "86.4", "86.4 (CIFAR-10, SVHN, Baseline, out)"),
        (".md", "84.01", "83.36", "83.36 (CIFAR-10, TinyImageNet, Baseline, published)"),
    ],
)
def test_a_changed_number_is_named(written, tmp_path, ending, right, wrong, said):
    path = written.with_suffix(ending)
    text = path.read_text()
    assert right in text
    path.write_text(text.replace(right, wrong, 1))
    _, faults = check.check(written, tmp_path)
    assert faults
    assert all(said in fault for fault in faults[:1]), faults


def test_fractions_are_shown_as_fractions(tmp_path):
    dirs = [own_table(tmp_path / "own")]
    write_run(tmp_path / "runs" / "a", [measured("cifar100", "msp", 78.0)])
    text = document.markdown(fill(read_table("made", dirs), find_runs([tmp_path / "runs"]), dirs))
    assert "0.780 0.770–0.790" in text
    assert re.search(r"\| difference +\| +−0\.020 \|", text)
