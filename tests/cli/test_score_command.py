"""`gradbench score`: the CSV file, the summary, bad input."""

import csv
import os
import shutil
import signal
import sys
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest
from _runs import gradbench, one_sentence
from _scored import SUPERVISED, UNSUPERVISED, finished
from PIL import Image

from gradbench.cli import main
from gradbench.data.files import SUFFIXES
from gradbench.predict.run_scorer import RunScorer
from gradbench.predict.scores_file import ScoresFile

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return finished(tmp_path_factory.getbasetemp())


@pytest.fixture
def here(folder, tmp_path):
    """Return a folder with the run under outputs/, twelve pictures and two that are none."""
    shutil.copytree(folder / "run", tmp_path / "outputs/mine")
    (tmp_path / "photos/inner").mkdir(parents=True)
    for row in range(12):
        place = "photos/inner" if row % 2 else "photos"
        shutil.copy(folder / f"pictures/{row:03d}.png", tmp_path / place)
    (tmp_path / "photos/broken.jpg").write_text("no picture")
    (tmp_path / "photos/notes.txt").write_text("not looked at")
    return tmp_path


def table(path):
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_a_row_for_every_picture(here):
    ran = gradbench("score", "mine", "photos", "photos/000.png", "photos/notes.txt", cwd=here)
    assert (ran.code, ran.err) == (0, "")
    found = table(here / "outputs/mine/scores.csv")
    names = ["file", "class", "probability", *UNSUPERVISED]
    assert list(found[0]) == [*names, *(f"verdict_{n}" for n in UNSUPERVISED), "note"]
    assert len(found) == len({row["file"] for row in found}) == 14  # each once
    good = [row for row in found if not row["note"]]
    assert len(good) == 12
    for row in good:
        assert 0 < float(row["probability"]) <= 1
        assert float(row["msp"]) == pytest.approx(-float(row["probability"]))
        assert row["verdict_msp"] in ("reliable", "abnormal")
    abnormal = sum(row["verdict_knn"] == "abnormal" for row in good)
    assert f"knn                {abnormal} of 12 abnormal: above " in ran.out
    assert "2 of 14 files cannot be read:\n  photos/broken.jpg: not a picture" in ran.out
    for row in found:
        if row["note"]:
            assert {row[n] for n in names[1:]} == {""}
    assert not list(here.rglob("*.part"))


def test_detectors_and_place_are_chosen(here):
    words = ("photos", "--detector", f"msp,{SUPERVISED[0]}", "--detector=mahalanobis_p")
    ran = gradbench("score", "outputs/mine", *words, "--out", "new/s.csv", "--seed=0", cwd=here)
    assert ran.code == 0, ran.err
    names = ["msp", *SUPERVISED]
    assert [n for n in table(here / "new/s.csv")[0] if n.startswith("verdict_")] == [
        f"verdict_{n}" for n in names
    ]
    assert gradbench("score", "mine", "photos", "out=t.csv", cwd=here).code == 0
    assert (here / "t.csv").is_file()
    assert not (here / "outputs/mine/scores.csv").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "name a run and the pictures"),
        (("mine",), "name a run and the pictures"),
        (("none", "photos"), "no finished run at none; runs here: outputs/mine"),
        (("mine", "photo"), "there is no file or folder photo"),
        (("mine", "outputs/mine/model"), "no pictures found (outputs/mine/model)"),
        (("mine", "photos", "--detector", "svhn"), "no detector of this run named 'svhn'"),
        (("mine", "photos", "--detectors", "msp"), "did you mean --detector or"),
        (("mine", "photos", "--out"), "score --out: a value must follow"),
        (("mine", "photos", "--out", "photos"), "photos is a folder"),
        (("mine", "photos", "--out", "photos/000.png/a.csv"), "scores cannot be written to"),
        (("mine", "photos", "--out", "photos/000.png"), "is there and holds no scores"),
        (("mine", "photos", "out=outputs/mine/run.json"), "holds no scores"),
        (("mine", "photos", "--detector", ","), "no detector is named: name some of"),
        (("n" * 300, "photos"), "no finished run at nnn"),
        (("~no such user", "photos"), "there is no user of that name"),
        (("mine", "n" * 300), "that can be looked at (File name too long)"),
        (("mine", "photos", "--detector", "\x1b[1m"), r"named '\x1b[1m'"),
        (("mine", "photos", "--seed", "first"), "--seed first: write the number of a network"),
        (("mine", "photos", "--seed", "1"), "has no network of seed 1: 0"),
        (("mine", "photos", "--device", "tpu"), "device=tpu is not here"),
        (
            ("mine", "outputs/mine/table.md"),
            "outputs/mine/table.md is no picture that can be read ",
        ),
        (
            ("mine", "outputs/mine/table.md", "photos/broken.jpg"),
            "none of 2 files can be read, the",
        ),
    ],
)
def test_bad_input_is_one_sentence(here, words, told):
    before = {path for path in here.rglob("*") if path.is_file()}
    assert told in one_sentence(gradbench("score", *words, cwd=here))
    assert {path for path in here.rglob("*") if path.is_file()} == before


def test_a_fault_on_the_way_leaves_the_earlier_file(here, monkeypatch):
    (here / "scores.csv").write_text("file,class,probability,earlier")

    whole = RunScorer.stream

    def stream(self, *given):
        yield from whole(self, *given)
        raise KeyboardInterrupt

    monkeypatch.setattr(RunScorer, "stream", stream)
    ran = gradbench("score", "mine", "photos", "--out", "scores.csv", cwd=here)
    assert (ran.code, ran.err) == (130, "gradbench: stopped; the same command starts again\n")
    assert (here / "scores.csv").read_text() == "file,class,probability,earlier"
    assert not list(here.glob(".*"))


def test_a_full_disk_is_one_sentence(here, monkeypatch):
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")

    def on_full_disk(file):
        file._stream.close()
        file._stream = open("/dev/full", "w", encoding="utf-8")  # noqa: SIM115
        return file

    monkeypatch.setattr(ScoresFile, "__enter__", on_full_disk)
    sentence = one_sentence(gradbench("score", "mine", "photos", "--out", "scores.csv", cwd=here))
    assert "No space left on device" in sentence
    assert not (here / "scores.csv").exists()


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_leaves_nothing_half_written(here, monkeypatch, name):
    number = getattr(signal, name)
    outside = signal.signal(number, signal.SIG_DFL)  # nohup has it ignored

    def stream(*_):
        assert signal.getsignal(number) is not signal.SIG_DFL  # or this test would end
        os.kill(os.getpid(), number)
        yield

    monkeypatch.setattr(RunScorer, "stream", stream)
    before = sorted(here.rglob("*"))
    try:
        assert gradbench("score", "mine", "photos", cwd=here).code == 128 + number
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, outside)
    assert sorted(here.rglob("*")) == before


def test_any_name_is_told_on_any_terminal(here, monkeypatch):
    names = ["\u00fc.png", "two\nlines.png", "bold\x1b[1m.png", "return\r.png"]
    for name in names:
        (here / "photos/inner" / name).write_text("no picture")
    terminal = TextIOWrapper(BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.chdir(here)
    main(["score", "mine", "photos/inner", "--out", "s.csv"])
    terminal.flush()
    told = terminal.buffer.getvalue().decode("ascii").splitlines()
    for name in (r"\xfc", r"two\nlines", r"bold\x1b[1m", r"return\r"):
        assert f"  photos/inner/{name}.png: not a picture that can be read" in told
    found = {Path(row["file"]).name for row in table(here / "s.csv")}
    pictures = (here / "photos/inner").iterdir()
    assert found == {path.name.replace("\r", r"\r") for path in pictures}


def test_a_large_picture_is_read_in_silence(here, monkeypatch, recwarn):
    Image.new("L", (400, 200)).save(here / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50_000)
    ran = gradbench("score", "mine", "large.png", cwd=here)
    assert (ran.code, ran.err) == (0, "")
    assert not [one for one in recwarn if issubclass(one.category, Image.DecompressionBombWarning)]
    assert table(here / "outputs/mine/scores.csv")[0]["note"] == ""


def test_the_help_names_the_suffixes(here):
    assert " ".join(SUFFIXES) in gradbench("score", "--help", cwd=here).out
