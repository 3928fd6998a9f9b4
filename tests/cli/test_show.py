"""`gradbench show`: the latest run, one by name, all tables."""

import os

import pytest
from _runs import copy_of, gradbench, one_sentence, reference

from gradbench.reporting.manifest import seal


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return reference(tmp_path_factory.getbasetemp())


@pytest.fixture
def outputs(finished, tmp_path):
    """Return a folder with two runs under outputs/, the second one later."""
    for age, name in ((100, "first"), (50, "second")):
        run = copy_of(finished / "run", tmp_path / "outputs" / name)
        text = (run / "run.json").read_text().replace('"quickstart"', f'"{name}"')
        (run / "run.json").write_text(text)
        os.utime(run / "run.json", (1e9 - age, 1e9 - age))
    return tmp_path


def test_the_latest(outputs):
    assert gradbench("show", cwd=outputs).out.startswith("second: digits in; small_cnn of width 16")


def test_by_name_and_by_path(outputs):
    named = gradbench("show", "first", cwd=outputs)
    assert named.out.startswith("first: digits in")
    assert gradbench("show", "outputs/first", cwd=outputs).out == named.out
    assert "outputs/first/table.md" in named.out


def test_the_terminal_table_is_that_of_the_run(finished):
    out = gradbench("show", "run", cwd=finished).out
    table = (finished / "run/table.md").read_text()
    (line,) = [text for text in out.splitlines() if text.startswith("patches")]
    for number in (word for word in line.split() if "–" in word):
        assert number in table


def test_all_tables(outputs):
    ran = gradbench("show", "first", "--all", cwd=outputs)
    assert ran.out == (outputs / "outputs/first/table.md").read_text()
    assert "## Controls" in ran.out


def test_what_cannot_be_shown(outputs, tmp_path_factory):
    sentence = one_sentence(gradbench("show", "third", cwd=outputs))
    assert "no finished run at third; runs here: outputs/first, outputs/second" in sentence
    assert "--all" in one_sentence(gradbench("show", "--everything", cwd=outputs))
    empty = tmp_path_factory.mktemp("empty")
    assert "gradbench run experiment=quickstart" in one_sentence(gradbench("show", cwd=empty))


def test_a_run_whose_files_are_damaged(outputs):
    (outputs / "outputs/first/run.json").write_text("{")
    assert "first/run.json is damaged" in one_sentence(gradbench("show", "first", cwd=outputs))
    (outputs / "outputs/second/results.csv").write_text("a,b\n")
    seal(outputs / "outputs/second")
    assert "is no table of results" in one_sentence(gradbench("show", "second", cwd=outputs))


def test_all_tables_without_their_file(outputs):
    (outputs / "outputs/first/table.md").unlink()
    sentence = one_sentence(gradbench("show", "first", "--all", cwd=outputs))
    assert sentence.startswith("outputs/first/table.md is missing: ")
