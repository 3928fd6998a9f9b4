import csv
import hashlib
import importlib.util
import json
from pathlib import Path

import pytest

from gradbench.report.table import markdown
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
                    leak = common | {"protocol": "random"}
                    made.append(row(**leak, **bounds, metric="auroc", value=value + 9))
    control = {"challenge_set": "control", "challenge": "random_labels", "method": "gradient"}
    more = {"protocol": "grouped", "fold": "all", "metric": "auroc", "unit": "percent"}
    made.append(row(**control, **more, value=51.0, p=0.0123, p_holm=4.6e-05))
    named = {"challenge_set": "adversarial", "challenge": "fgsm", "method": "f", "unit": "pixels"}
    return [*made, row(**named, fold="all", metric="l2", value=0.8126)]


def write(folder, seeds=(0,)):
    """Write the rows and the table of a run and return the path of the table."""
    folder.mkdir(parents=True)
    table = frame(rows(seeds))
    write_csv(table, folder / "results.csv")
    about = ABOUT | {"accuracy": {str(seed): 0.97 for seed in seeds}}
    (folder / "table.md").write_text(markdown(table, about))
    return folder / "table.md"


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_the_table_of_a_run_passes(check, tmp_path, capsys, seeds):
    table = write(tmp_path / "results" / "run", seeds)
    for text in ("4.6e-05 (!)", "0.813", "900", "round_trip:patches", "random"):
        assert text in table.read_text()
    assert check(tmp_path) == 0
    numbers = int(capsys.readouterr().out.split()[0])
    assert numbers > 50


def test_a_column_of_an_attack_is_its_challenge(check, tmp_path, capsys):
    """What an attack did stands in rows whose method is the attack's name."""
    common = {"challenge_set": "adversarial", "challenge": "fgsm", "protocol": "grouped"}
    common |= {"fold": "all"}
    found = [
        row(**common, method="msp", metric="auroc", value=71.2),
        row(**common, method="fgsm", metric="attack_success", value=90.0),
    ]
    folder = tmp_path / "results" / "run"
    folder.mkdir(parents=True)
    write_csv(frame(found), folder / "results.csv")
    table = "| detector | supervision | fgsm |\n| --- | --- | --- |\n| msp | none | {} |\n"
    (folder / "table.md").write_text(table.format("71.2"))
    assert check(tmp_path) == 0
    (folder / "table.md").write_text(table.format("90.0"))
    assert check(tmp_path) == 1
    assert "90.0 (msp, fgsm)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("67.1", "67.2"),  # rounded wrongly
        ("67.1", "70.1"),  # another detector's
        ("67.1", "74.1"),  # another level's
        ("0.813", "0.814"),
        ("0.0123", "0.0124"),
        ("4.6e-05", "4.7e-05"),
        ("| 901 ", "| 902 "),
        (" 33.6 ", " 30.1 "),  # another challenge's FPR95
        ("83.1 73.0–75.3", "74.1 73.0–75.3"),  # the number of the other split
    ],
)
def test_a_number_that_is_not_in_its_rows_is_named(check, tmp_path, capsys, right, wrong):
    table = write(tmp_path / "results" / "run")
    text = table.read_text()
    assert right in text
    table.write_text(text.replace(right, wrong, 1))
    assert check(tmp_path) == 1
    number = wrong.strip("| ").split(" ")[0]
    assert f"results/run/table.md: {number} (" in capsys.readouterr().err


def readme(tmp_path, table, path="results/run/results.csv"):
    text = f"# Read me\n\n<!-- results: {path} -->\n{table}\n<!-- /results -->\n"
    (tmp_path / "README.md").write_text(text + "\n| other | table |\n| --- | --- |\n| a | 99.9 |\n")


HEAD = "| challenge | level | msp | gradient |\n| --- | --- | ---: | ---: |\n"


def test_marked_tables_of_the_readme_are_checked_and_others_are_not(check, tmp_path, capsys):
    write(tmp_path / "results" / "run").unlink()
    readme(tmp_path, HEAD + "| `fog` | 3 | 74.1 73.0–75.3 | **77.1** |")
    assert check(tmp_path) == 0
    assert capsys.readouterr().out.startswith("4 numbers in 1 tables")
    readme(tmp_path, HEAD + "| `fog` | 3 | 77.1 73.0–75.3 | **77.1** |")
    assert check(tmp_path) == 1
    assert "README.md: 77.1 (fog, 3, msp) is in no row" in capsys.readouterr().err


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
    assert capsys.readouterr().out.startswith("24 numbers in 1 tables")
    path.write_text(path.read_text().replace("0.7657", "0.7567", 1))
    assert check(tmp_path) == 1
    assert "0.7567 was not published" in capsys.readouterr().err


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


RUNS = sorted(path.parent for path in (ROOT / "results").glob("*/results.csv"))


@pytest.mark.parametrize("folder", RUNS, ids=lambda folder: folder.name)
def test_no_mark_of_the_committed_results_contradicts_an_interval(folder):
    """The interval of a difference holds zero where Holm's procedure found none, and only there.

    Detectors whose own intervals do not meet differ whatever it found.
    """
    with open(folder / "results.csv", newline="", encoding="utf-8") as file:
        rows = [r for r in csv.DictReader(file) if r["challenge_set"] not in ("clean", "control")]
    several = any(row["fold"] == "networks" for row in rows)
    own = {
        (row["challenge"], row["level"], row["method"]): tuple(
            float(row[end] or "nan") for end in ("lo", "hi")
        )
        for row in rows
        if row["metric"] == "auroc" and row["fold"] == ("networks" if several else "all")
        and row["protocol"] != "random"
    }  # fmt: skip
    gaps = [row for row in rows if row["metric"] in ("auroc_difference", "auroc_gap")]
    assert gaps
    for gap in gaps:
        place = gap["challenge"], gap["level"]
        one, other = own[*place, gap["method"]], own[*place, gap["compared_with"]]
        apart = one[0] < one[1] < other[0] < other[1] or other[0] < other[1] < one[0] < one[1]
        alike = float(gap["lo"]) <= 0 <= float(gap["hi"])
        assert alike == (float(gap["p_holm"]) >= 0.05 and not apart), gap
        assert float(gap["lo"]) <= float(gap["value"]) <= float(gap["hi"])
        assert gap["test"] == "paired bootstrap over sources"


@pytest.mark.parametrize("name", ["quickstart", "ood_cifar10", "ood_cifar10_near"])
def test_committed_tables_are_what_their_rows_give(name):
    folder = ROOT / "results" / name
    about = json.loads((folder / "run.json").read_text())["about"]
    table = markdown(read_csv(folder / "results.csv"), about)
    assert table == (folder / "table.md").read_text(encoding="utf-8")


def test_what_is_committed_here_passes(check, capsys):
    assert check(ROOT) == 0, capsys.readouterr().err
