"""`gradbench bench engine` as a command."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest
from _runs import gradbench, one_sentence

from gradbench.bench import contenders, memory, timing
from gradbench.bench.contenders import Contender
from gradbench.bench.record import COLUMNS

SMALL = (
    *("bench", "engine", "--backbone", "small_cnn", "--batch", "4", "--image-size", "8"),
    *("--rounds", "2", "--out", "out"),
)
NAME = "engine-small_cnn-w16-b4-8px-cpu-1thread-float32"


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr(timing, "SECONDS", 0.0)


def read(path: Path) -> dict[str, dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        assert tuple(reader.fieldnames) == COLUMNS
        return {row["contender"]: row for row in reader}


def test_all_contenders_and_what_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "peak_in_child", lambda name, settings: 10.0 + len(name))
    ran = gradbench(*SMALL, cwd=tmp_path)
    assert ran.code == 0, ran.err
    assert [p.name for p in (tmp_path / "out").iterdir()] == [f"{NAME}.csv"]
    assert ran.out.splitlines()[-1] == f"written to out/{NAME}.csv"
    rows = read(tmp_path / "out" / f"{NAME}.csv")
    assert list(rows) == list(contenders.CONTENDERS)
    reference = rows["engine"]["reference"]
    assert reference in contenders.STEPS
    assert f"ratios to {reference}" in ran.out
    assert rows[reference]["ratio"] == rows[reference]["memory_ratio"] == "1"
    for name in ("forward", "step", "step_channels_last", "engine", "vmap", "loop"):
        row = rows[name]
        assert f"\n{name} " in ran.out
        assert float(row["images_per_second"]) > 0
        assert float(row["ratio_low"]) <= float(row["ratio"]) <= float(row["ratio_high"])
        assert float(row["memory_mib"]) == 10 + len(name)
        assert (row["rounds"], row["images"], row["calls"]) == ("2", "4", "1")
    for name in ("vmap", "loop"):
        assert float(rows[name]["difference"]) < 1e-4
        assert rows[name]["agrees"] == "yes"
    assert rows["engine"]["note"].startswith("chunk ")
    about = rows["engine"]
    assert about["command"] == f"gradbench {' '.join(SMALL)}"
    assert (about["backbone"], about["width"], about["batch"]) == ("small_cnn", "16", "4")
    assert (about["device"], about["threads"], about["precision"]) == ("cpu", "1", "float32")
    for known in ("processor", "cores", "torch", "torchvision", "gradbench", "date", "parameters"):
        assert about[known]
    assert about["pytorch-ood"]  # a version, or absent


def test_backpack_agrees(tmp_path):
    pytest.importorskip("backpack")
    ran = gradbench(*SMALL, "--no-memory", "--contenders", "backpack", cwd=tmp_path)
    assert ran.code == 0, ran.err
    rows = read(tmp_path / "out" / f"{NAME}-only_step_backpack.csv")
    assert list(rows) == ["step", "step_channels_last", "backpack"]
    assert rows["backpack"]["agrees"] == "yes"
    assert rows["backpack"]["memory_mib"] == rows["step"]["memory_ratio"] == ""


def test_several_networks_end_in_one_table(tmp_path):
    several = "small_cnn@8,torchvision:vgg11@8,small_cnn@12"
    words = ("--backbone", several, "--no-memory", "--contenders", "engine,loop")
    ran = gradbench(*SMALL, *words, cwd=tmp_path)
    assert one_sentence(ran).startswith("torchvision:vgg11 cannot take images of 8x8 pixels")
    header, *rows = (line.split() for line in ran.out.splitlines()[-3:])
    assert header[:4] == ["network", "pixels", "engine", "loop"]
    assert [row[:2] + row[4:] for row in rows] == [["small_cnn", n, "0"] for n in ("8", "12")]
    assert all(float(number) > 0 for row in rows for number in row[2:4])
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_a_library_that_is_missing_is_a_note(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "backpack", None)
    monkeypatch.setitem(sys.modules, "pytorch_ood.detector", None)
    ran = gradbench(*SMALL, "--no-memory", "--contenders", "backpack,pytorch_ood", cwd=tmp_path)
    assert ran.code == 0, ran.err
    rows = read(next((tmp_path / "out").iterdir()))
    for missing in ("backpack", "pytorch_ood"):
        assert rows[missing]["note"] == "not installed: pip install 'gradbench[bench]'"
        assert rows[missing]["ratio"] == ""
        assert rows[missing]["note"] in ran.out


def test_wrong_norms_are_found(tmp_path, monkeypatch):
    right = contenders.CONTENDERS["vmap"]

    def wrong(model, images, settings):
        made = right(model, images, settings)
        return Contender("vmap", lambda: made.run() * 1.01, made.images)

    monkeypatch.setitem(contenders.CONTENDERS, "vmap", wrong)
    ran = gradbench(*SMALL, "--no-memory", "--contenders", "vmap,loop", cwd=tmp_path)
    assert ran.code == 2
    assert one_sentence(ran) == "norms disagree with the engine's: vmap"
    assert "DISAGREES" in ran.out
    rows = read(next((tmp_path / "out").iterdir()))
    assert rows["vmap"]["agrees"] == "no"
    assert float(rows["vmap"]["difference"]) == pytest.approx(0.01, rel=0.01)
    assert rows["loop"]["agrees"] == "yes"


def test_reduced_precision_shows_the_engines_own_error(tmp_path):
    words = ("--no-memory", "--contenders", "engine", "--precision", "bfloat16")
    ran = gradbench(*SMALL, *words, cwd=tmp_path)
    assert ran.code == 0, ran.err
    row = read(next((tmp_path / "out").iterdir()))["engine"]
    assert 1e-5 < float(row["difference"]) < 1
    assert row["agrees"] == ""


def test_a_contender_whose_process_dies_is_not_run_here(tmp_path, monkeypatch):
    def peak(name, settings):
        if name == "vmap":
            raise memory.Killed("killed by signal 9")
        return 1.0

    def never(model, images, settings):
        raise AssertionError("would take the others with it")

    monkeypatch.setattr(memory, "peak_in_child", peak)
    monkeypatch.setitem(contenders.CONTENDERS, "vmap", never)
    ran = gradbench(*SMALL, "--contenders", "engine,vmap", cwd=tmp_path)
    assert ran.code == 0, ran.err
    rows = read(next((tmp_path / "out").iterdir()))
    assert (rows["vmap"]["note"], rows["vmap"]["memory_mib"]) == ("killed by signal 9", "")
    assert rows["engine"]["memory_mib"] == "1"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("enginee",), "no subject of bench named 'enginee': did you mean engine?"),
        (("engine", "--backbone", "resnet19"), "no backbone named 'resnet19': did you mean"),
        (("engine", "--backbone", "torchvision:resnt50"), "no network of torchvision named"),
        (("engine", "--contenders", "engine,vmp"), "no contender named 'vmp': did you mean vmap?"),
        (("engine", "--device", "tpu"), "no device named 'tpu': "),
        (("engine", "--precision", "fp8"), "no precision named 'fp8': "),
        (("engine", "--precision", "tf32"), "precision tf32 is one of NVIDIA's GPUs"),
        (("engine", "--batch", "0"), "gradbench bench engine: argument --batch: 0 is no whole"),
        (("engine", "--bach", "4"), "gradbench bench engine: unrecognized arguments: --bach 4"),
        (("engine", "--backbone", "torchvision:resnet18", "--width", "4"),
         "torchvision:resnet18 has no width"),
        (("engine", "--backbone", "custom"), "backbone custom names no class"),
        (("engine", "--backbone", "resnet18@big"), "--backbone resnet18@big: big is no whole"),
        (("engine", "--backbone", ", "), "--backbone: no network was named"),
        (("engine", "--config-dir", "nowhere"), "--config-dir nowhere: there is no such folder"),
        (("engine", "--backbone", "torchvision:vgg11", "--image-size", "8"),
         "torchvision:vgg11 cannot take images of 8x8 pixels"),
    ],
)  # fmt: skip
def test_wrong_words_are_answered_in_a_sentence(tmp_path, words, sentence):
    assert one_sentence(gradbench("bench", *words, cwd=tmp_path)).startswith(sentence)


def test_a_place_that_cannot_be_written_is_told_before_any_work(tmp_path):
    (tmp_path / "out").write_text("a file")
    assert one_sentence(gradbench(*SMALL, cwd=tmp_path)).startswith("--out out: ")


def test_help_is_quick_and_shows_examples():
    code = (
        "import sys; from gradbench.cli import main\n"
        "try: main(['bench', 'engine', '--help'])\n"
        "except SystemExit: pass\n"
        "print('torch' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ran.stdout.endswith("False\n"), ran.stderr
    assert "--backbone torchvision:vit_b_16" in ran.stdout
    assert gradbench("bench").out.startswith("gradbench bench SUBJECT")
