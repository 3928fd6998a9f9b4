import hashlib
import importlib.util
import json
from pathlib import Path

import numpy as np
import pandas
import pytest

from gradbench.report.finished_run import seal
from gradbench.report.run_tables import write_markdown
from gradbench.run.rows import frame, read_csv, row, write_csv

ROOT = Path(__file__).resolve().parents[1]
ABOUT = {
    "experiment": "made_up",
    "in_dist": "digits",
    "backbone": "small_cnn",
    "width": 16,
    "accuracy": {"0": 0.97, "1": 0.98},
    "n_clean": 360,
    "protocol": "grouped",
    "detectors": {
        "msp": {"supervision": "none", "clean_seen": "none", "reads": ["logits"]},
        "gradient": {"supervision": "training", "clean_seen": "none", "reads": ["norms"]},
    },
    "remark": "",
    "command": "gradbench run",
}
RUN = {
    "config": {"backbone": {}, "evaluation": {"seed": 0}, "challenge": {}},
    "data": {},
    "time": {"begun": ""},
    "code": {"version": "0"},
    "networks": {},
}


@pytest.fixture(scope="module")
def check():
    spec = importlib.util.spec_from_file_location("check", ROOT / "scripts" / "check_results.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def rows(seeds=(0,)):
    made = []
    cells = [("ood", "patches", ""), ("corruption", "fog", 1), ("corruption", "fog", 3)]
    cells.append(("control", "round_trip:patches", ""))
    for seed in seeds:
        for place, (kind, challenge, level) in enumerate(cells):
            for step, method in enumerate(("msp", "gradient")):
                value = 60.123456 + 7 * place + 3 * step + 2 * seed
                common = {
                    "challenge_set": kind,
                    "challenge": challenge,
                    "level": level,
                    "method": method,
                    "train_seed": seed,
                    "role": "main",
                    "protocol": "grouped",
                    "fold": "all",
                    "unit": "percent",
                    "n_normal": 360,
                    "n_abnormal": 900 + place,
                }
                bounds = {"lo": value - 1.11, "hi": value + 1.22}
                made.append(row(**common, **bounds, metric="auroc", value=value))
                made.append(row(**common, metric="fpr95", side="normal", value=value / 2))
                if level == 3:
                    leak = common | {"role": "random_split", "protocol": "random"}
                    made.append(row(**leak, **bounds, metric="auroc", value=value + 9))
    control = {
        "role": "random_labels",
        "challenge_set": "control",
        "challenge": "random_labels",
        "method": "gradient",
    }
    more = {"protocol": "grouped", "fold": "all", "metric": "auroc", "unit": "percent"}
    made.append(row(**control, **more, value=51.0, p=0.0123, p_holm=4.6e-05))
    named = {
        "role": "attack",
        "challenge_set": "adversarial",
        "challenge": "fgsm",
        "method": "f",
        "unit": "pixels",
    }
    return [*made, row(**named, fold="all", metric="l2", value=0.8126)]


def write(folder, seeds=(0,)):
    """Write the rows and the table of a run and return the path of the table."""
    folder.mkdir(parents=True)
    table = frame(rows(seeds))
    write_csv(table, folder / "results.csv")
    about = ABOUT | {"accuracy": {str(seed): 0.97 for seed in seeds}}
    (folder / "table.md").write_text(write_markdown(table, about))
    (folder / "run.json").write_text(json.dumps(RUN | {"about": about}))
    assert seal(folder)
    return folder / "table.md"


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_the_table_of_a_run_passes(check, tmp_path, capsys, seeds):
    write(tmp_path / "results" / "run", seeds)
    assert check(tmp_path) == 0
    assert "1 runs" in capsys.readouterr().out


@pytest.mark.parametrize(("right", "wrong"), [("67.1", "67.2"), ("4.6e-05", "4.7e-05")])
def test_a_table_that_its_rows_do_not_give_is_named(check, tmp_path, capsys, right, wrong):
    table = write(tmp_path / "results" / "run")
    table.write_text(table.read_text().replace(right, wrong, 1))
    seal(table.parent)
    assert check(tmp_path) == 1
    assert "results/run/table.md: not what the rows give" in capsys.readouterr().err


def test_a_file_that_was_edited_is_named(check, tmp_path, capsys):
    folder = write(tmp_path / "results" / "run").parent
    rows = read_csv(folder / "results.csv")
    rows.loc[0, "value"] += 0.000001
    write_csv(rows, folder / "results.csv")
    assert check(tmp_path) == 1
    assert "results.csv was edited" in capsys.readouterr().err
    (folder / "results.csv").unlink()
    assert check(tmp_path) == 1
    assert "results/run/run.json: its run has no rows" in capsys.readouterr().err


def readme(tmp_path, table, path="results/run/results.csv"):
    text = f"# Read me\n\n<!-- results: {path} -->\n{table}\n<!-- /results -->\n"
    (tmp_path / "README.md").write_text(text + "\n| other | table |\n| --- | --- |\n| a | 99.9 |\n")


HEAD = "| challenge | level | msp | gradient |\n| --- | --- | ---: | ---: |\n"


def test_marked_tables_of_the_readme_are_checked_and_others_are_not(check, tmp_path, capsys):
    write(tmp_path / "results" / "run")
    readme(tmp_path, HEAD + "| `fog` | 3 | 74.1 73.0–75.3 | **77.1** |")
    assert check(tmp_path) == 0
    readme(tmp_path, HEAD + "| `fog` | 3 | 77.1 73.0–75.3 | **77.1** |")
    assert check(tmp_path) == 1
    assert "README.md: 77.1 (fog, msp) is in no row" in capsys.readouterr().err


def test_a_mark_without_end_or_without_rows_is_a_fault(check, tmp_path, capsys):
    readme(tmp_path, HEAD)
    assert check(tmp_path) == 1
    assert "results/run/results.csv" in capsys.readouterr().err
    (tmp_path / "README.md").write_text("<!-- results: a.csv -->\n| a |\n")
    assert check(tmp_path) == 1
    assert "has no `<!-- /results -->`" in capsys.readouterr().err


def test_tables_of_the_papers_are_checked(check, tmp_path, capsys):
    from gradbench.report.papers.fill import fill, to_csv
    from gradbench.report.papers.table import read_table

    path = tmp_path / "results" / "tables" / "saliency.csv"
    path.parent.mkdir(parents=True)
    path.write_text(to_csv([fill(read_table("saliency"), [])]))
    assert check(tmp_path) == 0
    assert "1 papers' tables" in capsys.readouterr().out
    path.write_text(path.read_text().replace("0.7657", "0.7567", 1))
    assert check(tmp_path) == 1
    assert "saliency.csv: not what the print and the runs give: " in capsys.readouterr().err


def test_weights_must_have_their_checksum(check, tmp_path, capsys):
    folder = tmp_path / "results" / "weights"
    folder.mkdir(parents=True)
    (folder / "a.safetensors").write_bytes(b"weights")
    assert check(tmp_path) == 1
    assert "a.safetensors: not listed" in capsys.readouterr().err
    digest = hashlib.sha256(b"weights").hexdigest()
    (folder / "SHA256SUMS").write_text(f"{digest}  a.safetensors\n")
    assert check(tmp_path) == 0
    (folder / "a.safetensors").write_bytes(b"other")
    assert check(tmp_path) == 1
    assert "its SHA-256 is not" in capsys.readouterr().err
    (folder / "a.safetensors").unlink()
    assert check(tmp_path) == 1
    assert "not there" in capsys.readouterr().err


RUNS = sorted(path.parent for path in (ROOT / "results").glob("*/results.csv.gz"))


@pytest.mark.slow
@pytest.mark.parametrize("folder", RUNS, ids=lambda folder: folder.name)
def test_no_mark_of_the_committed_results_contradicts_an_interval(folder):
    """The interval of a difference holds zero where Holm's procedure found none, and only there.

    Detectors whose own intervals do not meet differ whatever it found.
    """
    rows = pandas.read_csv(folder / "results.csv.gz", dtype={"level": str}, low_memory=False)
    rows = rows[rows["role"].isin(["main", "transfer"])]
    several = (rows["fold"] == "networks").any()
    own = rows[(rows["metric"] == "auroc") & (rows["fold"] == ("networks" if several else "all"))]
    own = own.set_index(["challenge", "level", "method"])[["lo", "hi"]]
    gaps = rows[rows["metric"].isin(["auroc_difference", "auroc_gap"])]
    assert len(gaps)
    one = own.reindex(pandas.MultiIndex.from_frame(gaps[["challenge", "level", "method"]]))
    names = ["challenge", "level", "compared_with"]
    other = own.reindex(pandas.MultiIndex.from_frame(gaps[names]))
    lo, hi = (np.stack([one[end], other[end]], axis=1) for end in ("lo", "hi"))
    apart = (lo < hi).all(axis=1) & (hi.min(axis=1) < lo.max(axis=1))
    gaps = gaps.reset_index(drop=True)
    alike = (gaps["lo"] <= 0) & (gaps["hi"] >= 0)
    assert (alike == ((gaps["p_holm"] >= 0.05) & ~apart)).all()
    assert ((gaps["lo"] <= gaps["value"]) & (gaps["value"] <= gaps["hi"])).all()
    assert (gaps["test"] == "paired bootstrap over sources").all()


@pytest.mark.slow
def test_what_is_committed_here_passes(check, capsys):
    assert check(ROOT) == 0, capsys.readouterr().err
