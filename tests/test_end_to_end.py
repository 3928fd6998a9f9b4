"""A small run from the first word to the last file: what it writes, and what is in there."""

import csv
import re

import pytest
from _runs import SMALL, TINY, about, copy_of, gradbench, kept, reference, rows, same_results, steps

from gradbench.run.rows import COLUMNS, LISTED

pytestmark = pytest.mark.slow

METHODS = ("msp", "gradient_logistic")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return reference(tmp_path_factory.getbasetemp())


def measured(folder, **wanted):
    """Return the AUROC rows over all folds."""
    return rows(folder, metric="auroc", fold="all", **wanted)


def test_every_promised_file_is_there(finished):
    found = {p.relative_to(finished / "run").as_posix() for p in (finished / "run").rglob("*.*")}
    assert found == {
        *("results.csv", "costs.csv", "costs.md", "table.md", "run.json"),
        *("figures/roc.png", "figures/gradient_profile.png"),  # of one level there is no curve
        *("figures/scores_msp.png", "figures/scores_gradient_logistic.png"),
        *("model/s0/model.json", "model/s0/network.safetensors"),
        *(
            f"model/s0/detectors/gradient_logistic@{name}.safetensors"
            for name in ("patches", "gaussian_noise_5", "fgsm")
        ),
    }
    for path in (finished / "run/figures").iterdir():
        assert path.read_bytes().startswith(b"\x89PNG")


def test_exactly_the_expected_cells_are_measured(finished):
    found = {
        (row["challenge_set"], row["challenge"], row["level"], row["method"], row["protocol"])
        for row in measured(finished)
    }
    # twins of the clean images, and tiles of one region: a random split tears both apart
    cells = (("corruption", "gaussian_noise", "5"), ("adversarial", "fgsm", "0"),
             ("ood", "patches", "0"))  # fmt: skip
    expected = {
        *((*cell, method, "grouped") for cell in cells for method in METHODS),
        *((*cell, "gradient_logistic", "random") for cell in cells),
        *(("control", name, "0", method, "grouped")
          for name in ("identity", "memorisation", "round_trip:patches") for method in METHODS),
        ("control", "random_labels", "0", "gradient_logistic", "grouped"),
    }  # fmt: skip
    assert found == expected
    assert len(measured(finished)) == len(expected)


def test_rows_name_what_they_measure(finished):
    every = rows(finished)
    # those of lists stand in runs of benchmarks alone
    assert all((*row, *LISTED) == COLUMNS for row in every)
    for row in every:
        assert (row["experiment"], row["backbone"], row["width"]) == (
            "quickstart",
            "small_cnn",
            "16",
        )
        assert (row["in_dist"], row["train_seed"], row["challenge_seed"]) == ("digits", "0", "0")
    for row in measured(finished):
        if row["challenge"] == "memorisation":  # one number that says what to look out for
            assert row["lo"] == row["hi"] == ""
            continue
        assert float(row["lo"]) <= float(row["value"]) <= float(row["hi"])
        assert int(row["n_normal"]) > 0 < int(row["n_abnormal"])
        assert row["unit"] == "percent"
    assert {row["supervision"] for row in rows(finished, method="msp")} == {"none"}
    assert {row["supervision"] for row in rows(finished, method="gradient_logistic")} == {
        "training"
    }


def test_sources_of_the_images(finished):
    found = {row["challenge"]: row["source"] for row in measured(finished, method="msp")}
    assert found["patches"] == "regenerated"
    assert found["gaussian_noise"] == found["fgsm"] == "generated"
    (patches,) = measured(finished, method="msp", challenge="patches")
    assert "32x32 -> 8x8 bilinear antialiased" in patches["note"]
    assert (patches["n_normal"], patches["n_abnormal"]) == ("200", "520")


def test_a_set_that_is_missing_leaves_a_hole_and_the_run_goes_on(finished):
    (hole,) = rows(finished, challenge="svhn")
    assert hole["note"].startswith("not measured: svhn is not on this machine: ")
    assert hole["value"] == hole["metric"] == ""
    (line,) = [
        line for line in (finished / "run/table.md").read_text().splitlines() if "| svhn" in line
    ]
    assert re.search(r"\d\.\d", line) is None


def test_the_scores_are_above_what_is_easy(finished):
    for method in METHODS:
        (row,) = measured(finished, challenge="patches", method=method, protocol="grouped")
        assert float(row["value"]) > 90
    (accuracy,) = rows(finished, method="f")
    assert float(accuracy["value"]) > 85


def test_the_mean_of_the_folds_is_the_value(finished):
    for row in measured(finished, challenge="fgsm", protocol="grouped"):
        folds = rows(
            finished, metric="auroc", challenge="fgsm", protocol="grouped", method=row["method"]
        )
        values = [float(one["value"]) for one in folds if one["fold"] != "all"]
        assert sorted(one["fold"] for one in folds) == ["0", "1", "2", "3", "4", "all"]
        assert float(row["value"]) == pytest.approx(sum(values) / 5, abs=1e-5)
    single = [row for row in rows(finished, challenge="fgsm") if row["fold"] not in ("all", "")]
    assert {row["metric"] for row in single} == {"auroc"}


def test_the_table_shows_the_numbers_of_the_rows(finished):
    table = (finished / "run/table.md").read_text()
    main = table.split("## AUROC")[1].split("\n## ")[0]
    for challenge in ("patches", "gaussian_noise", "fgsm"):
        (line,) = [text for text in main.splitlines() if text.startswith(f"| {challenge} ")]
        cells = [
            text.strip().replace("**", "").replace("≈", "") for text in line.strip("|").split("|")
        ]
        for method, cell in zip(METHODS, cells[-2:]):
            (row,) = measured(finished, challenge=challenge, method=method, protocol="grouped")
            lo, hi = float(row["lo"]), float(row["hi"])
            assert cell == f"{float(row['value']):.1f} {lo:.1f}–{hi:.1f}"
    assert "200 test images measured" in table
    assert "shows the machinery" in table
    assert "`gradbench run experiment=quickstart training.epochs=2" in table


def test_identity_is_at_chance_and_random_labels_carry_their_p(finished):
    for row in measured(finished, challenge="identity"):
        assert float(row["value"]) == 50
    (row,) = measured(finished, challenge="random_labels")
    assert 0.001 < float(row["p"]) <= float(row["p_holm"]) <= 1
    assert row["test"] == "Mann-Whitney over sources"
    assert "p = " not in row["note"]
    assert int(row["n_normal"]) + int(row["n_abnormal"]) == 200


def test_the_record_of_the_run(finished):
    told = about(finished)
    assert set(told["versions"]) >= {"gradbench", "python", "torch", "numpy"}
    assert told["config"]["training"]["epochs"] == 2
    assert told["data"]["digits test"]["images"] == 200
    assert (told["data"]["train"]["images"], told["data"]["hold-out"]["images"]) == (1000, 200)
    assert all(len(images["fingerprint"]) == 64 for images in told["data"].values())
    assert told["hardware"]["device"] == "cpu"
    assert told["time"]["products_found"] == 0
    assert told["time"]["products_made"] == len(kept(finished))


def test_costs_name_every_step(finished):
    header, *lines = (finished / "run/costs.csv").read_text().splitlines()
    assert header.startswith("step,what,images,seconds")
    assert {line.split(",")[0] for line in lines} == set(steps(kept(finished)))
    assert all(line.endswith(",yes") for line in lines)


def test_costs_tell_speed_memory_and_passes_of_each_detector(finished):
    with open(finished / "run/costs.csv", newline="", encoding="utf-8") as stream:
        scores = {r["what"]: r for r in csv.DictReader(stream) if r["step"] == "scores"}
    passes = {"msp": ("1", "0"), "gradient_logistic": ("1", "1")}
    assert {m: (r["forward_passes"], r["backward_passes"]) for m, r in scores.items()} == passes
    for row in scores.values():
        rate = int(row["images"]) / float(row["seconds"])
        assert float(row["images_per_second"]) == pytest.approx(rate, rel=0.01)
    lines = (finished / "run/costs.md").read_text().splitlines()
    for name, counts in passes.items():
        (line,) = [one for one in lines if one.startswith(f"| {name} ")]
        cells = [cell.strip().replace(",", "") for cell in line.strip("|").split("|")]
        assert tuple(cells[1:3]) == counts
        assert 0 < int(cells[4]) <= int(cells[3])  # with its passes a detector is not faster


def test_nothing_that_executes_on_loading_is_kept(finished):
    for path in finished.rglob("*"):
        assert path.suffix not in (".pt", ".pth", ".pkl", ".pickle", ".npy", ".joblib"), path
    for path in finished.rglob("*.safetensors"):
        size = int.from_bytes(path.read_bytes()[:8], "little")
        assert path.read_bytes()[8 : 8 + size].lstrip().startswith(b"{")


def test_again_makes_nothing_and_gives_the_same_bytes(finished, tmp_path):
    again = copy_of(finished, tmp_path)
    for name in ("results.csv", "table.md"):
        (again / "run" / name).unlink()
    assert gradbench("run", *SMALL, cwd=again).code == 0
    assert same_results(finished, again)
    assert about(again)["time"]["products_made"] == 0
    assert about(again)["time"]["products_found"] == len(kept(finished))
    assert kept(again) == kept(finished)


def test_challenges_may_stay_off_the_grid_and_the_rows_say_so(finished, tmp_path):
    here = copy_of(finished, tmp_path)
    words = ("challenges=[fgsm]", "detectors=[msp]", "challenge.quantise=false")
    (here / "run").rename(here / "rounded")
    assert gradbench("run", *SMALL, *words, cwd=here).code == 0
    (row,) = measured(here, challenge="fgsm", protocol="grouped")
    assert row["note"].startswith("not rounded to the 1/255 grid")
    (rounded,) = measured(finished, challenge="fgsm", method="msp", protocol="grouped")
    assert "1/255" not in rounded["note"]
    # without rounding the whole of epsilon is used
    (linf,) = rows(here, metric="linf")
    assert float(linf["value"]) == pytest.approx(0.05, abs=1e-6)


def test_several_networks_in_one_run(finished, tmp_path):
    here = copy_of(finished, tmp_path)
    words = ("challenges=[gaussian_noise]", "detectors=[msp]", "seeds=[0,1]")
    ran = gradbench("run", *SMALL, *words, cwd=here, figures=True)
    assert ran.code == 0, ran.err
    found = measured(here, challenge="gaussian_noise")
    assert sorted(row["train_seed"] for row in found) == ["0", "1"]
    assert found[0]["value"] != found[1]["value"]
    assert sorted(path.name for path in (here / "run/model").iterdir()) == ["s0", "s1"]
    assert {"roc_s0.png", "roc_s1.png"} <= {p.name for p in (here / "run/figures").iterdir()}
    assert steps(kept(here) - kept(finished))["network"] == 1
    low, high = sorted(float(row["value"]) for row in found)
    table = (here / "run/table.md").read_text()
    assert f"{(low + high) / 2:.1f} ({low:.1f}–{high:.1f})" in table
    assert "seeds 0, 1" in table


def test_networks_of_several_checkpoints(tmp_path):
    for seed in ("0", "1"):
        ran = gradbench("run", *TINY, f"seed={seed}", f"out={seed}/run", cwd=tmp_path)
        assert ran.code == 0, ran.err
        weights = tmp_path / seed / "run/model" / f"s{seed}" / "network.safetensors"
        weights.rename(tmp_path / f"f-{seed}.safetensors")
    words = [*TINY, "seeds=[0,1]", "backbone.checkpoint=f-{seed}.safetensors", "out=both/run"]
    ran = gradbench("run", *words, cwd=tmp_path)
    assert ran.code == 0, ran.err
    for seed in ("0", "1"):
        alone = rows(tmp_path / seed, train_seed=seed, metric="auroc")
        both = rows(tmp_path / "both", train_seed=seed, metric="auroc")
        assert alone
        assert [row["value"] for row in alone] == [row["value"] for row in both]
    (tmp_path / "f-1.safetensors").unlink()
    ran = gradbench("run", *words[:-1], "out=none", "store=other", cwd=tmp_path)
    assert ran.code == 2
    assert "backbone.checkpoint=f-1.safetensors: there is no such file" in ran.err
    assert not (tmp_path / "none").exists()
