"""The files of a run: broken off, edited, missing; folders of older versions."""

import json

import pytest
from _made_runs import measured, write_run

from gradbench.errors import GradbenchError
from gradbench.report.finished_run import FinishedRun, seal


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


def test_a_copy_that_broke_off(run):
    path = run / "results.csv"
    whole = path.read_bytes()
    for kept in (whole[:-1], whole[: len(whole) // 2], b""):
        path.write_bytes(kept)
        missing = f"{len(whole) - len(kept)} of its {len(whole)} bytes are missing: "
        assert refused(run).startswith(f"results.csv is broken off or shortened: {missing}")


def test_an_edited_number_and_an_added_row(run):
    path = run / "results.csv"
    text = path.read_text()
    for changed in (text.replace("80.0", "90.0"), text + text.splitlines()[-1] + "\n", "\0" * 9999):
        path.write_text(changed)
        assert refused(run).startswith("results.csv was edited after the run wrote it")


def test_a_missing_file_and_other_files_of_the_run(run):
    (run / "table.md").write_text("# all\n")
    seal(run)
    assert FinishedRun(run).text("table.md") == "# all\n"
    (run / "table.md").write_text("# al")
    with pytest.raises(GradbenchError, match=r"table\.md is broken off .* 2 of its 6 bytes"):
        FinishedRun(run).text("table.md")
    (run / "results.csv").unlink()
    assert refused(run).startswith("results.csv is missing: ")


def test_a_run_that_lists_no_files_is_refused(run):
    record = json.loads((run / "run.json").read_text())
    del record["files"]
    (run / "run.json").write_text(json.dumps(record))
    with pytest.raises(GradbenchError, match=r"run\.json is damaged .*files is missing"):
        FinishedRun(run)
    assert seal(run)
    assert len(FinishedRun(run).frame) == 3
    assert not seal(run.parent)  # no run


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
