"""Which runs a table is made from, and which it leaves aside."""

import pytest
from _made_runs import measured, own_table, write_run

from gradbench.errors import GradbenchError
from gradbench.report.papers.fill import fill
from gradbench.report.papers.runs import find_runs
from gradbench.report.papers.spec import read_table

OLD, NEW = "2026-01-01T00:00:00+0000", "2026-02-01T00:00:00+0000"


@pytest.fixture
def made(tmp_path):
    dirs = [own_table(tmp_path / "own")]

    def filled():
        return fill(read_table("made", dirs), find_runs([tmp_path / "runs"]), dirs)

    return filled


def far(value, **more):
    return [measured("svhn", "msp", value, **more)]


def first(filling):
    """Return what the first cell shows."""
    return filling.cells[0].numbers["measured"].value


def test_the_newest_run_wins(made, tmp_path):
    write_run(tmp_path / "runs" / "a", far(80.0), begun=NEW, weights="x")
    write_run(tmp_path / "runs" / "b", far(81.0), begun=OLD, weights="y")
    filling = made()
    assert first(filling) == 80.0
    (told,) = filling.chosen.told
    assert "Left aside" in told
    assert told.endswith("runs/b.")


def test_the_run_that_fills_more_cells_goes_before_a_newer_one(made, tmp_path):
    more = [*far(80.0), measured("cifar100", "gradient", 79.0)]
    write_run(tmp_path / "runs" / "a", more, begun=OLD, weights="x")
    write_run(tmp_path / "runs" / "b", far(81.0), begun=NEW, weights="y")
    assert [run.path.name for run in made().runs] == ["a"]


def test_the_published_size_goes_before_more_cells(made, tmp_path):
    write_run(tmp_path / "runs" / "a", far(80.0), begun=OLD)
    more = [*far(81.0), measured("cifar100", "gradient", 79.0)]
    write_run(tmp_path / "runs" / "b", more, begun=NEW, width=32, weights="y")
    assert first(made()) == 80.0


def test_the_published_size_goes_before_the_newest(made, tmp_path):
    write_run(tmp_path / "runs" / "a", far(80.0), begun=OLD)
    write_run(tmp_path / "runs" / "b", far(81.0), begun=NEW, width=32, weights="y")
    assert first(made()) == 80.0


def test_the_preferred_protocol_goes_before_the_newest(made, tmp_path):
    write_run(tmp_path / "runs" / "a", far(80.0), begun=OLD)
    other = far(81.0, protocol="icip2020")
    write_run(tmp_path / "runs" / "b", other, begun=NEW, protocol="icip2020")
    assert first(made()) == 80.0


def test_a_protocol_that_the_table_does_not_accept_is_not_used(made, tmp_path):
    other = far(81.0, protocol="transfer")
    write_run(tmp_path / "runs" / "b", other, protocol="transfer")
    assert made().cells[0].numbers == {}


def test_runs_of_the_same_network_complete_each_other(made, tmp_path):
    write_run(tmp_path / "runs" / "a", far(80.0), begun=OLD)
    near = [measured("cifar100", "gradient", 79.0)]
    write_run(tmp_path / "runs" / "b", near, begun=NEW)
    filling = made()
    assert [run.path.name for run in filling.runs] == ["a", "b"]
    assert filling.chosen.told == []


@pytest.mark.parametrize("other", [{"weights": "y"}, {"limit": 2000}, {"protocol": "icip2020"}])
def test_numbers_of_two_networks_parts_or_protocols_never_stand_in_one_table(made, tmp_path, other):
    write_run(tmp_path / "runs" / "a", far(80.0), begun=OLD)
    protocol = {"protocol": other.get("protocol", "grouped")}
    near = [measured("cifar100", "gradient", 79.0, **protocol)]
    write_run(tmp_path / "runs" / "b", near, begun=NEW, **other)
    assert len(made().runs) == 1


def test_a_run_without_a_number_of_the_table_does_not_lead(made, tmp_path):
    write_run(tmp_path / "runs" / "a", far(80.0), begun=OLD)
    other = [measured("textures", "msp", 70.0)]
    write_run(tmp_path / "runs" / "b", other, begun=NEW, weights="y")
    assert first(made()) == 80.0


def test_runs_of_the_same_moment_are_told(made, tmp_path):
    write_run(tmp_path / "runs" / "a", far(80.0), weights="x")
    write_run(tmp_path / "runs" / "b", far(81.0), weights="y")
    filling = made()
    assert first(filling) == 80.0
    assert "began at the same time" in filling.chosen.told[0]


@pytest.mark.parametrize("other", [{"in_dist": "svhn"}, {"backbone": "resnet34"}])
def test_other_grounds_are_not_taken(made, tmp_path, other):
    write_run(tmp_path / "runs" / "a", far(80.0, **other), **other)
    assert made().cells[0].numbers == {}


def test_runs_are_found_below_and_stores_are_not_searched(tmp_path):
    write_run(tmp_path / "x" / "deep" / "a", far(1.0), begun=OLD)
    write_run(tmp_path / "x" / "b", far(1.0), begun=NEW)
    write_run(tmp_path / "x" / "store" / "c", far(1.0))
    write_run(tmp_path / "x" / ".part" / "d", far(1.0))
    (tmp_path / "x" / "unfinished").mkdir()
    (tmp_path / "x" / "unfinished" / "run.json").write_text("{}")
    assert [run.path.name for run in find_runs([tmp_path / "x", tmp_path])] == ["b", "a"]


@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"about": {}}'])
def test_a_damaged_run_is_told_in_a_sentence(tmp_path, text):
    folder = write_run(tmp_path / "a", far(1.0))
    (folder / "run.json").write_text(text)
    with pytest.raises(GradbenchError, match=r"a/run\.json is damaged"):
        find_runs([tmp_path])


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "\0\n"])
def test_damaged_rows_are_told_in_a_sentence(made, tmp_path, text):
    folder = write_run(tmp_path / "runs" / "a", far(1.0))
    (folder / "results.csv").write_text(text)
    with pytest.raises(GradbenchError, match=r"a/results\.csv"):
        made()
