"""`gradbench tables`: lists, renders, plans and runs; one sentence for bad input."""

import csv
import json
import subprocess
import sys
import time
from io import StringIO

import pytest
from _made_runs import measured, own_table, write_run
from _runs import gradbench, one_sentence

from gradbench.report.finished_run import seal
from gradbench.report.papers.table import table_files

QUICK = """
title: Digits
description: on embedded images
published: made
layout: {rows: [challenge], columns: [method]}
metrics: {auroc: {title: AUROC}}
measured:
  - in_dist: digits
    experiment: quickstart
    backbone: small_cnn
    challenge: {Tiles: [svhn, patches], Attack: fgsm}
    method: {Baseline: msp, Ours: gradient_logistic, Later: nobody}
"""
PRINTED = """\
D,Tiles,Baseline,auroc,percent,90.0
D,Tiles,Ours,auroc,percent,95.0
D,Tiles,Later,auroc,percent,95.0
D,Attack,Baseline,auroc,fraction,0.800
D,Attack,Ours,auroc,fraction,0.850
"""
SMALL = (
    *("limit=200", "training.epochs=2", "evaluation.replicates=100", "data.root=nowhere"),
    *("data.download=false", "controls.random_labels=false", "controls.round_trip=false"),
    *("controls.random_split=false", "store=store"),
)


@pytest.fixture
def runs(tmp_path):
    rows = [measured("svhn", "msp", 91.0), measured("svhn", "gradient", 99.7)]
    write_run(tmp_path / "results" / "a", rows)
    return tmp_path


def test_list_is_quick_and_light():
    code = (
        "import sys; from gradbench.cli import main; main(['tables', 'list']);"
        "print([n for n in ('torch', 'hydra', 'scipy') if n in sys.modules])"
    )
    begun = time.process_time()
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.endswith("[]\n")
    assert time.process_time() - begun < 5
    lines = ran.stdout.splitlines()
    assert lines[0].startswith(f"tables ({len(table_files())})")
    assert any(line.split()[:2] == ["ood", "90"] for line in lines)


def test_without_words_the_tables_are_listed(tmp_path):
    assert gradbench("tables", cwd=tmp_path).out == gradbench("tables", "list", cwd=tmp_path).out
    dirs = own_table(tmp_path / "own")
    for words in (("--config-dir", str(dirs)), ("list", f"--config-dir={dirs}")):
        assert "  made " in gradbench("tables", *words, cwd=tmp_path).out


def test_tables_are_made_from_the_runs_of_the_usual_folders(runs):
    ran = gradbench("tables", "ood", "corruption", cwd=runs)
    assert ran.code == 0, ran.err
    assert "Made from results/a (2026-05-01, code 0123456): 2 cells." in ran.out
    assert "corruption: Corruption detection" in ran.out
    assert "Compared with the print" in ran.out


def test_results_names_other_folders(runs):
    (runs / "results").rename(runs / "elsewhere")
    ran = gradbench("tables", "ood", "results=elsewhere", cwd=runs)
    assert "Made from elsewhere/a" in ran.out


@pytest.mark.parametrize(
    ("name", "begins"),
    [
        ("markdown", "# ood: "),
        ("csv", "table,paper,"),
        ("html", "<section "),
        ("terminal", "ood: "),
    ],
)
def test_formats(runs, name, begins):
    assert gradbench("tables", "ood", f"format={name}", cwd=runs).out.startswith(begins)


def test_csv_of_several_tables_has_one_header(runs):
    ran = gradbench("tables", "--all", "format=csv", cwd=runs)
    lines = list(csv.DictReader(StringIO(ran.out)))
    assert len({line["table"] for line in lines}) == len(table_files())
    assert sum(line["line"] in ("", "measured") for line in lines) == 1405
    assert [line["measured"] for line in lines if line["measured"]] == ["91.0", "99.7"]


def test_out_writes_files(runs):
    ran = gradbench("tables", "ood", "saliency", "out=here", cwd=runs)
    there = {path.name for path in (runs / "here").iterdir()}
    assert there == {f"{n}.{e}" for n in ("ood", "saliency") for e in ("md", "csv", "html")}
    assert set(ran.out.split()) == {f"here/{name}" for name in there}
    gradbench("tables", "ood", "format=html", "out=one", cwd=runs)
    assert [path.name for path in (runs / "one").iterdir()] == ["ood.html"]


def test_tables_without_a_built_method_need_no_run(tmp_path):
    ran = gradbench("tables", "gradcon_fmnist", cwd=tmp_path)
    assert ran.code == 0
    assert "method not built: GPND, Grad, GradCon" in ran.out
    assert "0 of 30 cells measured" in ran.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("od",), "no table named 'od': did you mean ood?"),
        (("ood",), "no finished run under outputs or results: `gradbench tables ood --run`"),
        (("--all",), "no finished run under outputs or results"),
        (("format=markdown",), "name a table, or --all for all: adversarial, "),
        (("ood", "format=pdf"), "no format named 'pdf'"),
        (("ood", "results=nowhere"), "results=nowhere: there is no such folder"),
        (("ood", "--al"), "no option of tables named '--al': did you mean --all"),
        (("ood", "seed=1"), "seed=1 is a setting of runs, and none is made: add --plan or --run"),
        (("ood", "backbone=resnet18"), "backbone=resnet18 is a setting of runs"),
        (("list", "ood"), "`tables list` takes no ood"),
        (("ood", "--plan", "sed=1"), "no setting named 'sed': did you mean seed"),
        (("ood", "--plan", "data.rot=x"), "no setting named 'data.rot': did you mean data.root"),
    ],
)
def test_bad_input_is_a_sentence(tmp_path, words, said):
    assert one_sentence(gradbench("tables", *words, cwd=tmp_path)).startswith(said)


def test_damaged_rows_are_a_sentence(runs):
    (runs / "results" / "a" / "results.csv").write_text("a,b\n")
    sentence = one_sentence(gradbench("tables", "ood", cwd=runs))
    assert sentence.startswith("results/a/results.csv is broken off or shortened: ")
    seal(runs / "results" / "a")
    sentence = one_sentence(gradbench("tables", "ood", cwd=runs))
    assert sentence.startswith("results/a/results.csv is no table of results")


def test_plan_says_what_is_missing_and_why(tmp_path):
    dirs = own_table(tmp_path / "own", QUICK, PRINTED)
    words = ("tables", "made", "gradcon_fmnist", "--plan", f"--config-dir={dirs}", *SMALL)
    ran = gradbench(*words, cwd=tmp_path)
    assert ran.code == 0, ran.err
    counted = "made: 0 of 5 cells measured, 0 by stand-in, 5 holes\n"
    assert f"{counted}  1 method not built: Later\n  4 not run: quick" in ran.out
    assert "30 holes\n  30 method not built: GPND, " in ran.out
    command = next(line for line in ran.out.splitlines() if line.startswith("gradbench run"))
    assert "experiment=quickstart backbone=small_cnn protocol=grouped" in command
    assert "detectors=[msp,gradient_logistic] challenges=[svhn,patches,fgsm]" in command
    assert "fills up to 4 cells in about " in ran.out
    assert "1 run, about " in ran.out
    assert not (tmp_path / "outputs").exists()
    others = gradbench(*words, "backbone=resnet18", cwd=tmp_path)
    assert "0 runs, about" in others.out


def test_plan_says_where_images_go_that_are_not_here(tmp_path):
    ran = gradbench("tables", "ood", "--plan", "backbone=resnet18", "data.root=nowhere",
                    "data.download=false", "experiment=ood_svhn", cwd=tmp_path)  # fmt: skip
    assert "will not be made: svhn is not on this machine" in ran.out
    assert "nowhere/svhn/train.npz" in ran.out
    assert "0 runs, about" in ran.out


@pytest.mark.slow
def test_run_makes_what_is_missing_and_then_nothing(tmp_path):
    dirs = own_table(tmp_path / "own", QUICK, PRINTED)
    words = ("tables", "made", "--run", f"--config-dir={dirs}", *SMALL)
    ran = gradbench(*words, cwd=tmp_path)
    assert ran.code == 0, ran.err
    (folder,) = (tmp_path / "outputs" / "tables").iterdir()
    assert folder.name == "quickstart_small_cnn_limit200"
    config = json.loads((folder / "run.json").read_text())["config"]
    assert config["detectors"] == ["msp", "gradient_logistic"]
    assert config["challenges"] == ["svhn", "patches", "fgsm"]
    assert f"Made from outputs/tables/{folder.name}" in ran.out
    assert "4 of 5 cells measured" in ran.out
    assert "patches in place of svhn" in ran.out
    stamp = (folder / "run.json").stat().st_mtime_ns
    again = gradbench(*words, cwd=tmp_path)
    assert again.code == 0, again.err
    assert (folder / "run.json").stat().st_mtime_ns == stamp
    assert "4 of 5 cells measured" in again.out


@pytest.mark.slow
def test_a_run_that_fails_is_told_after_the_tables(tmp_path):
    dirs = own_table(tmp_path / "own", QUICK, PRINTED)
    ran = gradbench("tables", "made", "--run", f"--config-dir={dirs}", *SMALL,
                    "backbone.checkpoint=nowhere.safetensors", cwd=tmp_path)  # fmt: skip
    assert ran.code == 2
    assert "nowhere.safetensors" in ran.err
    assert ran.err.splitlines()[-1].startswith("gradbench: these runs failed, as said above: outp")
    assert "0 of 5 cells measured" in ran.out
