"""Runs with each protocol: who is measured on what, and what the tables say of it."""

import csv
import json
import shutil
import sys
from pathlib import Path

import pytest
from _runs import TINY, gradbench, one_sentence

from gradbench.report.run_rows import AUROC, MEASURES

pytestmark = pytest.mark.slow

WORDS = (*TINY, "limit=100", "levels=[1,5]", "challenges=[gaussian_noise,patches]")
MANY = "detectors=[msp,max_logit,energy,gradient_logistic]"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Return a folder with a store that holds the network and its outputs."""
    return tmp_path_factory.mktemp("protocols")


def run(base: Path, protocol: str, *words: str):
    shutil.rmtree(base / protocol, ignore_errors=True)  # of another configuration
    ran = gradbench("run", *WORDS, f"protocol={protocol}", MANY, *words, f"out={protocol}",
                    cwd=base)  # fmt: skip
    assert ran.code == 0, ran.err
    with open(base / protocol / "results.csv", newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream)), ran.out, (base / protocol / "table.md").read_text()


def auroc(rows, **wanted):
    wanted = {"metric": "auroc", "fold": "all"} | wanted
    return [r for r in rows if all(r[name] == text for name, text in wanted.items())]


def check_results(folder: Path) -> int:
    sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
    try:
        import check_results as script
    finally:
        sys.path.pop(0)
    (folder / "results").mkdir(exist_ok=True)
    for path in (folder / name / "table.md" for name in ("transfer", "access2023", "grouped")):
        place = folder / "results" / path.parent.name
        place.mkdir(exist_ok=True)
        for name in ("table.md", "results.csv"):
            (place / name).write_bytes((path.parent / name).read_bytes())
    return script.main(folder)


def test_transfer_names_what_was_fitted_on_and_measures_it_on_all_others(base):
    rows, out, table = run(base, "transfer")
    titles = ["gaussian_noise 1", "gaussian_noise 5", "patches"]
    for title in titles:
        name, _, level = title.partition(" ")
        for fitted in titles:
            method = f"gradient_logistic@{fitted}"
            (row,) = auroc(rows, challenge=name, level=level or "0", method=method)
            assert row["protocol"] == ("grouped" if fitted == title else "transfer")
            assert row["supervision"] == "training"
        of = {"challenge": name, "level": level or "0"}
        assert not auroc(rows, **of, method="gradient_logistic")
        (own,) = auroc(rows, **of, method="msp")
        others = auroc(rows, **of, protocol="transfer")
        assert {(r["n_normal"], r["n_abnormal"]) for r in others} == (
            {(own["n_normal"], own["n_abnormal"])}
        )
    (mean,) = auroc(rows, challenge="mean:corruption", method="gradient_logistic@patches")
    values = [
        float(
            auroc(rows, challenge="gaussian_noise", level=level, method=mean["method"])[0]["value"]
        )
        for level in "15"
    ]
    assert float(mean["value"]) == pytest.approx(sum(values) / 2, abs=2e-6)
    assert mean["note"] == "mean of 2 cells: gaussian_noise 1 5"
    (far,) = auroc(rows, challenge="gaussian_noise", level="1",
                   method="gradient_logistic@gaussian_noise 5")  # fmt: skip
    assert "fitted on gaussian_noise 5" in far["note"]
    matrix = table.split("## Transfer\n")[1].split("\n## ")[0]
    (line,) = (one for one in matrix.splitlines() if one.startswith("| gradient_logistic@patches"))
    (diagonal,) = auroc(rows, challenge="patches", method="gradient_logistic@patches")
    assert f"({float(diagonal['value']):.1f})" in line
    assert "gradient_logistic@patches" in out
    again = gradbench("run", *WORDS, "protocol=transfer", MANY, "out=transfer", cwd=base)
    assert again.code == 0
    assert json.loads((base / "transfer/run.json").read_text())["time"]["products_made"] == 0


def test_the_diagonal_is_what_grouped_measures(base):
    rows, _, _ = run(base, "grouped")
    with open(base / "transfer/results.csv", newline="", encoding="utf-8") as stream:
        across = list(csv.DictReader(stream))
    (one,) = auroc(rows, challenge="patches", method="gradient_logistic")
    (two,) = auroc(across, challenge="patches", method="gradient_logistic@patches")
    names = ("value", "lo", "hi", "n_normal")
    assert [one[n] for n in names] == [two[n] for n in names]


def test_unsupervised_leaves_out_and_names_what_learns_from_challenges(base):
    rows, out, table = run(base, "unsupervised")
    assert {r["method"] for r in auroc(rows, challenge="patches")} == {"msp", "max_logit", "energy"}
    for text in (out, table):
        assert "Left out, for they see challenges: gradient_logistic (training)." in text
    (row,) = auroc(rows, challenge="patches", method="msp")
    assert (row["protocol"], row["n_normal"]) == ("unsupervised", "100")
    own = {r["fold"] for r in rows if r["protocol"] == "unsupervised"}
    assert own == {"all"}  # the only fold is no row of its own
    gaps = [r for r in rows if r["metric"] == "auroc_difference" and r["challenge"] == "patches"]
    assert len(gaps) == 2
    assert len({r["compared_with"] for r in gaps}) == 1
    ran = gradbench("run", *WORDS, "protocol=unsupervised", "detectors=[gradient]", cwd=base)
    assert "gradient learn from challenges" in one_sentence(ran)


def test_differences_and_means_have_rows_that_add_up(base):
    rows, _, _ = run(base, "grouped")
    for level in "15":
        own = {r["method"]: float(r["value"])
               for r in auroc(rows, challenge="gaussian_noise", level=level)}  # fmt: skip
        gaps = [r for r in rows if r["metric"] == "auroc_difference" and r["level"] == level]
        assert len(gaps) == 3
        for gap in gaps:
            best = gap["compared_with"]
            assert own[best] == max(own.values())
            expected = own[gap["method"]] - own[best]
            assert float(gap["value"]) == pytest.approx(expected, abs=2e-6)
            assert gap["test"] == "paired bootstrap over sources"
            assert 0 <= float(gap["p"]) <= float(gap["p_holm"]) <= 1
            assert 0 <= float(gap["p_folds"]) <= 1
            assert (float(gap["lo"]) <= 0 <= float(gap["hi"])) == (float(gap["p_holm"]) >= 0.05)
            assert "p =" not in gap["note"]
    own = {r["method"]: float(r["value"]) for r in auroc(rows, challenge="mean:corruption")}
    pairs = [r for r in rows if r["metric"] == "auroc_gap"]
    assert len(pairs) == 6  # every pair of four detectors once, on the mean alone
    assert {r["challenge"] for r in pairs} == {"mean:corruption"}
    for pair in pairs:
        expected = own[pair["method"]] - own[pair["compared_with"]]
        assert float(pair["value"]) == pytest.approx(expected, abs=2e-6)
        assert 0 <= float(pair["p_holm"]) <= 1


def test_access2023_counts_every_image_once_and_shows_accuracy_as_in_the_article(base):
    words = ("detectors=[msp,mahalanobis_fe,gradient_logistic]", "challenges=[patches]")
    rows, _, table = run(base, "access2023", *words, "controls.identity=false")
    (row,) = auroc(rows, challenge="patches", method="msp")
    assert row["n_normal"] == "100"
    folds = [r for r in rows if r["challenge"] == "patches" and r["method"] == "msp"
             and r["metric"] == "auroc" and r["fold"] != "all"]  # fmt: skip
    assert len(folds) == 10
    article = table.partition("## Detection accuracy as in the article")[2].partition("\n## ")[0]
    lines = [line for line in article.splitlines() if line.startswith("| ")]
    filled = {name: {tuple(map(bool, map(str.strip, line.split("|")[-4:-2])))
              for line in lines if f" {name} " in line}
              for name in ("msp", "mahalanobis_fe", "gradient_logistic")}  # fmt: skip
    best, half = {(False, True)}, {(True, False)}
    assert filled == {"msp": best, "mahalanobis_fe": best, "gradient_logistic": half}
    tested = {(r["challenge"], r["level"]): r for r in rows if r["metric"] == "auroc_difference"
              and r["method"] == "msp"}  # fmt: skip
    (shown,) = (
        line.split("|")[-2].strip() for line in lines if "patches" in line and " msp " in line
    )
    p = float(tested["patches", "0"]["p_folds"])
    assert shown == f"{p:.3g}"


@pytest.mark.parametrize(("protocol", "measured"), [("icip2020", 20), ("reference", 90)])
def test_protocols_of_one_division_measure_its_last_part(base, protocol, measured):
    rows, _, table = run(base, protocol)
    (row,) = auroc(rows, challenge="gaussian_noise", level="5", method="gradient_logistic")
    assert (row["protocol"], row["n_normal"], row["n_abnormal"]) == (
        (protocol, str(measured), str(measured))
    )
    assert f"Protocol: `{protocol}`." in table


def test_several_networks_have_an_interval_and_a_range(base):
    words = ("training.epochs=1", "challenges=[patches]", "detectors=[msp,energy]")
    rows, _, table = run(base, "grouped", "seeds=[0,1]", *words)
    (mean,) = auroc(rows, challenge="patches", method="msp", fold="networks")
    ends = [r for r in rows if r["metric"] == "auroc_range" and r["challenge"] == "patches"
            and r["method"] == "msp"]  # fmt: skip
    each = [float(r["value"]) for r in auroc(rows, challenge="patches", method="msp")]
    assert len(each) == 2
    assert float(mean["value"]) == pytest.approx(sum(each) / 2, abs=2e-6)
    assert float(mean["lo"]) < float(mean["value"]) < float(mean["hi"])
    assert mean["train_seed"] == ""
    assert [float(ends[0][n]) for n in ("lo", "hi")] == [min(each), max(each)]
    assert "## Several networks" in table


def test_every_number_of_these_tables_is_in_a_row(base):
    assert AUROC not in MEASURES.values()
    assert check_results(base) == 0


@pytest.mark.parametrize(
    ("words", "texts"),
    [
        (["protocol=transfr"], ["did you mean transfer"]),
        (["protocol=access2023", "protocol.repeats=0"], ["protocol.repeats=0", "at least 1"]),
        (["protocol=icip2020", "protocol.split=rand"], ["did you mean random"]),
        (["protocol.folds=2"], ["protocol.folds=2", "at least 3"]),
        (["protocol.folds=300"], ["300 folds need", "protocol.folds lower"]),
        (["challenges=[{use: gaussian_noise, name: mean}]"], ["'mean' is the name of a mean"]),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else None,
)
def test_what_cannot_be_meant_is_one_sentence(base, words, texts):
    sentence = one_sentence(gradbench("run", *WORDS, *words, "out=refused", cwd=base))
    for text in texts:
        assert text in sentence
