"""`gradbench report`: which runs it takes, where it writes, one sentence for bad input."""

import pytest
from _reported import parsed, write
from _runs import gradbench, one_sentence
from made_rows import everything, whole_run

from gradbench.report.finished_run import seal


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    """Return a folder with two runs under results/ and one under outputs/; only read."""
    place = tmp_path_factory.mktemp("there")
    for name in ("results/b", "results/deep/a", "outputs/mine"):
        write(place / name, everything("ood", "patches", "msp", 91.0), costs="")
    (place / "results/weights").mkdir()
    (place / "half").mkdir()
    (place / "half/results.csv").write_text("")
    write(place / "moved", whole_run())
    (place / "moved/.gradbench-part").mkdir()
    (place / "moved/.gradbench-part/run.json").write_text("{}")
    return place


def chapters(path):
    page = parsed(path.read_text(encoding="utf-8"))
    return [tr.all("small")[0].text for tr in page.all("table")[0].all("tbody")[0].all("tr")]


def test_every_run_under_results_by_default(there):
    ran = gradbench("report", cwd=there)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("outputs/report.html: 2 runs, ")
    path = there / "outputs/report.html"
    assert chapters(path) == ["b", "a"]
    assert "<code>gradbench report</code>" in path.read_text()


def test_named_runs_in_their_order_each_once(there, tmp_path):
    out = tmp_path / "a page.html"
    ran = gradbench("report", "mine", "results/b", "results/../results/b", f"out={out}", cwd=there)
    assert ran.code == 0
    assert chapters(out) == ["mine", "b"]
    assert f"&#39;out={out}&#39;</code>" in out.read_text()


def test_results_names_other_folders(there, tmp_path):
    out = tmp_path / "r.html"
    assert gradbench("report", "results=results/deep,outputs", f"out={out}", cwd=there).code == 0
    assert chapters(out) == ["mine", "a"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nowhere"], "nowhere: there is no such folder, nor a run named so in outputs/"),
        (["results"], "results is no folder of a run: results=results takes the 2 below it"),
        (["results/weights"], "results/weights is no folder of a run: name one that `run` wrote"),
        (["half"], "the run in half is only half-written (run.json missing): the command that "
                   "made it goes on from where it stopped"),
        (["moved"], "the run in moved is only half-written (.gradbench-part is left): "),
        (["out=no/such/r.html"], "out=no/such/r.html: there is no folder no/such to write to"),
        (["out=results"], "out=results is a folder: name a file in it, as out=results/report.html"),
        (["format=pdf"], "no setting of report named 'format': valid choices are out, results"),
        (["--open"], "no option of report named '--open': "),
        (["results=nowhere"], "results=nowhere: there is no such folder"),
        (["results=results/weights"], "no finished run under results/weights: `gradbench run "),
        (["mine", "results=results"], "either name runs (mine) or folders that hold them "),
    ],
)  # fmt: skip
def test_what_cannot_be_reported(there, words, sentence):
    before = sorted(path for path in there.rglob("*"))
    assert one_sentence(gradbench("report", *words, cwd=there)).startswith(sentence)
    assert [p for p in sorted(there.rglob("*")) if p not in before] in ([], [there / "outputs"])


@pytest.mark.parametrize(
    ("name", "text", "word"),
    [("run.json", "{", "run.json is damaged"), ("results.csv", "a,b\n", "is no table of results"),
     ("costs.csv", "step,what\nscores,msp\n", "costs.csv cannot be read")],
)  # fmt: skip
def test_a_damaged_run(tmp_path, name, text, word):
    folder = write(tmp_path / "run", whole_run())
    (folder / name).write_text(text)
    if name != "run.json":
        seal(folder)
    assert word in one_sentence(gradbench("report", "run", "out=r.html", cwd=tmp_path))
    assert not (tmp_path / "r.html").exists()


def test_a_damaged_picture(tmp_path):
    folder = write(tmp_path / "run", whole_run())
    (folder / "figures").mkdir()
    (folder / "figures/roc.png").write_text("no picture")
    seal(folder)
    said = one_sentence(gradbench("report", "run", "out=r.html", cwd=tmp_path))
    assert "run/figures/roc.png cannot be read" in said
