"""The CSV file of scores: what it may replace, what a name may hold, what is cleared away."""

import csv
import os

import pandas
import pytest

from gradbench.errors import GradbenchError
from gradbench.predict.scores_file import ScoresFile


@pytest.fixture
def run(tmp_path):
    """Return a folder that looks like a run, with a picture beside it."""
    for name in ("run/run.json", "run/results.csv", "run/model/s0/model.json", "a.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("precious")
    return tmp_path / "run"


def frame(*names: str) -> pandas.DataFrame:
    columns = {"file": names, "class": "0", "probability": 0.5, "msp": -0.5}
    return pandas.DataFrame(columns | {"verdict_msp": "reliable", "note": ""}, range(len(names)))


def write(path, *names):
    with ScoresFile(path) as file:
        file.write([frame(*names)])


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    with ScoresFile(tmp_path / "s.csv") as first, ScoresFile(tmp_path / "s.csv") as second:
        second.write([frame("b.png")])
        first.write([frame("a.png", "b.png")])
    assert len((tmp_path / "s.csv").read_text().splitlines()) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["s.csv"]


def test_a_name_is_no_formula_in_a_spreadsheet(tmp_path):
    write(tmp_path / "s.csv", "=cmd.png", "-1.png", "a.png")
    with open(tmp_path / "s.csv", newline="") as stream:
        cells = [(line["file"], line["msp"]) for line in csv.DictReader(stream)]
    assert cells == [("'=cmd.png", "-0.5"), ("'-1.png", "-0.5"), ("a.png", "-0.5")]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("a.png", "is there and holds no scores"),
        ("run/run.json", "is there and holds no scores"),
        ("linked/results.csv", "is there and holds no scores"),
        ("run/model/s0/model.json", "is there and holds no scores"),
        ("run/model/s0/new.csv", "where a run keeps its networks"),
        ("run", "is a folder"),
        ("link.csv", "is a link, a device or a pipe"),
        ("nowhere.csv", "is a link, a device or a pipe"),
        ("pipe", "is a link, a device or a pipe"),
        ("~no such user/a.csv", "there is no user of that name"),
        ("n" * 300, "File name too long"),
    ],
)
def test_what_is_not_replaced(run, name, told, monkeypatch):
    here = run.parent
    (here / "linked").symlink_to("run")
    (here / "link.csv").symlink_to("a.png")
    (here / "nowhere.csv").symlink_to("nothing")
    os.mkfifo(here / "pipe")
    monkeypatch.chdir(here)
    before = sorted(here.rglob("*"))
    with pytest.raises(GradbenchError) as refusal:
        write(name, "a.png")
    assert told in str(refusal.value)
    assert sorted(here.rglob("*")) == before
    assert {p.read_text() for p in here.rglob("*") if p.is_file()} == {"precious"}


def test_earlier_scores_are_replaced_wherever_they_lie(run):
    for path in (run / "scores.csv", run.parent / "scores.csv"):
        write(path, "a.png")
        write(path, "b.png")
        assert path.read_text().splitlines()[1] == "b.png,0,0.5,-0.5,reliable,"
    (run.parent / "empty.csv").touch()
    write(run.parent / "empty.csv", "a.png")


def test_names_with_any_break_of_lines_come_back(tmp_path):
    names = ["c\nd.png", 'g",h.png', r"a\rb.png", "plain.png"]
    write(tmp_path / "s.csv", *names[:2], "a\rb.png", names[-1])
    with open(tmp_path / "s.csv", newline="", encoding="utf-8") as stream:
        assert [row["file"] for row in csv.DictReader(stream)] == names
    assert (tmp_path / "s.csv").read_bytes().endswith(b"\nplain.png,0,0.5,-0.5,reliable,\n")
