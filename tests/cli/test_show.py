"""`gradbench show`: the latest run, one by name, all tables."""

import os

import pytest
from _runs import copy_of, gradbench, one_sentence, reference

from gradbench.report.finished_run import seal


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


def test_a_copy_that_broke_off_and_other_run_jsons(outputs):
    path = outputs / "outputs/first/results.csv"
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    sentence = one_sentence(gradbench("show", "first", cwd=outputs))
    lost = f"9 of its {len(whole)} bytes are missing"
    assert sentence.startswith(f"outputs/first/results.csv is broken off or shortened: {lost}: ")
    for text in ("null", "", "[]", "{}", '{"about": {"experiment": 3}}'):
        (outputs / "outputs/first/run.json").write_text(text)
        for words in (["show", "first"], ["show", "first", "--all"], ["report", "first"]):
            sentence = one_sentence(gradbench(*words, cwd=outputs))
            assert sentence.startswith("outputs/first/run.json is damaged")


def test_text_of_strangers_reaches_no_terminal_as_it_is(outputs):
    first = outputs / "outputs/first"
    text = (first / "run.json").read_text()
    (first / "run.json").write_text(text.replace('"first"', '"\\u001b[31mred\\u0007"'))
    (first / "table.md").write_text("\x1b]0;title\x07 a\n")
    seal(first)
    assert gradbench("show", "first", cwd=outputs).out.startswith(r"\x1b[31mred\x07: digits in; ")
    assert gradbench("show", "first", "--all", cwd=outputs).out == "\\x1b]0;title\\x07 a\n"


def test_all_tables_without_their_file(outputs):
    (outputs / "outputs/first/table.md").unlink()
    sentence = one_sentence(gradbench("show", "first", "--all", cwd=outputs))
    assert sentence.startswith("outputs/first/table.md is missing: ")
