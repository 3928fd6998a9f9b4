"""The files of a run: broken off, edited, missing; folders of older versions."""

import json

import pytest
from _made_runs import measured, write_run

from gradbench.errors import GradbenchError
from gradbench.report.finished_run import FinishedRun, count_rows, seal


@pytest.fixture
def run(tmp_path):
    names = ("svhn", "scenes", "textures")
    return write_run(tmp_path / "run", [measured(name, "msp", 80.0) for name in names])


def refused(run) -> str:
    with pytest.raises(GradbenchError) as told:
        _ = FinishedRun(run).frame
    assert "\n" not in str(told.value)
    assert "carry out its command" in str(told.value)
    return str(told.value).removeprefix(f"{run}/")


def test_a_whole_run_is_read(run):
    assert len(FinishedRun(run).frame) == 3
    assert json.loads((run / "run.json").read_text())["files"]["results.csv"]["rows"] == 3


def test_a_copy_that_broke_off(run):
    path = run / "results.csv"
    lines = path.read_bytes().splitlines(keepends=True)
    for kept, lost in ((lines[:3], 1), (lines[:1], 3), ([], 3), ([*lines[:3], lines[3][:9]], 1)):
        path.write_bytes(b"".join(kept))
        assert refused(run).startswith(
            f"results.csv is broken off or shortened: {lost} of its 3 rows are missing: "
        )
    path.write_bytes(b"".join(lines)[:-1])  # the line end alone
    assert "1 of its 3 rows" in refused(run)


def test_an_edited_number_and_an_added_row(run):
    path = run / "results.csv"
    text = path.read_text()
    for changed in (text.replace("80.0", "90.0"), text + text.splitlines()[-1] + "\n", "\0" * 9999):
        path.write_text(changed)
        assert refused(run).startswith("results.csv was edited after the run wrote it")


def test_a_row_lost_that_another_makes_up_for_is_seen(run):
    path = run / "results.csv"
    text = path.read_text()
    path.write_text(text.replace("textures", "text\n"))
    assert refused(run).startswith("results.csv was changed after the run: 3 of")


def test_a_missing_file_and_other_files_of_the_run(run):
    (run / "table.md").write_text("# all\n")
    seal(run)
    assert FinishedRun(run).text("table.md") == "# all\n"
    (run / "table.md").write_text("# al")
    with pytest.raises(GradbenchError, match=r"table\.md was changed after the run: 2 of 6 bytes"):
        FinishedRun(run).text("table.md")
    (run / "results.csv").unlink()
    assert refused(run).startswith("results.csv is missing: ")


def test_older_runs_are_shown_with_a_word(run, capsys):
    told = json.loads((run / "run.json").read_text())
    del told["files"]
    (run / "run.json").write_text(json.dumps(told))
    older = FinishedRun(run)
    assert len(older.frame) == 3
    assert older.file("results.csv") == run / "results.csv"
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{run} was written by an older gradbench")
    assert seal(run)
    FinishedRun(run).file("results.csv")
    assert capsys.readouterr().err == ""
    assert not seal(run.parent)  # no run


def test_rows_are_counted_with_line_breaks_in_cells(tmp_path):
    path = tmp_path / "a.csv"
    for text, count in (("", 0), ("a\n", 0), ('a\n"1\n2"\n3\n', 2), ("a\n1\n2", 1)):
        path.write_text(text)
        assert count_rows(path) == count


def test_files_outside_the_folder_are_not_looked_at(run):
    told = json.loads((run / "run.json").read_text())
    for name in ("../other/results.csv", "/etc/passwd", "a/../../b", "a\0"):
        told["files"] = {name: told["files"].popitem()[1]}
        (run / "run.json").write_text(json.dumps(told))
        with pytest.raises(GradbenchError, match="which lies outside the folder"):
            FinishedRun(run)


def test_text_of_strangers_is_escaped(run):
    told = json.loads((run / "run.json").read_text())
    told["about"]["experiment"] = "a\x1b[31m\u202e"
    told["about"]["remark"] = "two\nlines\n"
    (run / "run.json").write_text(json.dumps(told))
    (run / "results.csv").write_text((run / "results.csv").read_text().replace("svhn", "s\x1b[1m"))
    seal(run)
    opened = FinishedRun(run)
    assert opened.record["about"]["experiment"] == r"a\x1b[31m\u202e"
    assert opened.record["about"]["remark"] == "two lines"
    assert r"s\x1b[1m" in set(opened.frame["challenge"])
