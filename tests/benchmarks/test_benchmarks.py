"""Every benchmark runs on a tiny network, and its numbers are what they are called."""

import argparse
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from _trained import digits, trained

sys.path.append(str(Path(__file__).parents[2] / "scripts" / "benchmarks"))

import attacks
import corruptions
import detectors
import directions
import engine
import harness
import picture
import precision
import routes

from gradbench.challenges.base import CleanBatch
from gradbench.errors import GradbenchError
from gradbench.gradients import squared_norms

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
TINY = ("--backbone", "small_cnn", "--image-size", "8")


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr(harness, "SHORTEST", 0.0)


def run(benchmark, monkeypatch, folder, *words) -> pd.DataFrame:
    """Run a benchmark as a command and return the table that it wrote."""
    words = (*words, "--threads", "1", "--out", str(folder))
    monkeypatch.setattr(sys, "argv", [f"{benchmark.__name__}.py", *words])
    benchmark.main()
    (path,) = folder.glob("*.csv")
    table = pd.read_csv(path)
    assert table["command"][0].startswith(f"python scripts/benchmarks/{benchmark.__name__}.py")
    assert table["processor"].notna().all()
    assert (table["threads"] == 1).all()
    return table


def clean(count: int) -> CleanBatch:
    images = digits(count)
    return CleanBatch.from_pixels(
        images.images, images.labels, images.sources, "cpu", quantise=False
    )


# engine


def test_engine_beside_the_others(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(engine, "_peak_in_child", lambda name, options: 10.0)
    table = run(engine, monkeypatch, tmp_path, *TINY, "--batch", "4", "--rounds", "1")
    assert list(table["contender"]) == list(engine.CONTENDERS)
    assert [p.name for p in tmp_path.iterdir()] == [
        "engine-small_cnn-w16-b4-8px-cpu-1thread-float32.csv"
    ]
    rows = table.set_index("contender")
    assert rows.loc[rows["reference"]["engine"], ["ratio", "memory_ratio"]].tolist() == [1, 1]
    for name in ("vmap", "backpack", "loop"):
        if pd.notna(rows["ratio"][name]):
            assert rows["agrees"][name] == "yes"
            assert rows["difference"][name] < 1e-4
            assert rows["ratio_low"][name] <= rows["ratio"][name] <= rows["ratio_high"][name]
    picture.draw([picture.read_table(next(tmp_path.glob("*.csv")))], tmp_path / "ratios.png")
    assert (tmp_path / "ratios.png").read_bytes()[:4] == b"\x89PNG"


def test_directions_together_and_apart(tmp_path, monkeypatch, capsys):
    words = (*TINY, "--batch", "4", "--rounds", "1", "--directions", "1,3")
    table = run(directions, monkeypatch, tmp_path, *words)
    assert [p.name for p in tmp_path.iterdir()] == [
        "directions-small_cnn-w16-b4-8px-cpu-1thread.csv"
    ]
    assert len(table) == 2 * (2 + 2 * 2)
    rows = table.set_index(["tensors", "contender", "directions"]).sort_index()
    assert rows["ratio"]["all", "step"].iloc[0] == 1
    for choice in ("all", "last_stage"):
        for count in (1, 3):
            assert rows["difference"][choice, "together", count] < 1e-5
            assert rows["ratio"][choice, "separate", count] > 0
    assert "note" not in table  # nothing failed


def test_directions_that_are_no_numbers_are_refused(tmp_path, monkeypatch):
    words = (*TINY, "--directions", "1,x")
    with pytest.raises(GradbenchError, match="--directions 1,x: x is no whole number"):
        run(directions, monkeypatch, tmp_path, *words)


def test_several_networks_end_in_one_table(tmp_path, monkeypatch, capsys):
    words = ("--backbone", "small_cnn@8,torchvision:squeezenet1_0@8,small_cnn@12", "--no-memory")
    words += ("--contenders", "engine", "--rounds", "1", "--batch", "2", "--out", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["engine.py", *words])
    with pytest.raises(
        GradbenchError, match="torchvision:squeezenet1_0 cannot take images of 8x8 pixels"
    ):
        engine.main()
    assert "tensors one at a time" in capsys.readouterr().out
    assert len(list(tmp_path.glob("*.csv"))) == 2


def test_a_wrong_formula_disagrees_and_a_relu_at_its_kink_does_not():
    exact = torch.rand(8, 3) + 1
    assert engine.agreement(exact * (1 + 1e-6), exact, "float32")["agrees"]
    assert not engine.agreement(exact * 1.01, exact, "float32")["agrees"]
    at_kink = exact.clone()
    at_kink[0] *= 1.01
    assert engine.agreement(at_kink, exact, "float32")["agrees"]
    assert "agrees" not in engine.agreement(exact, exact, "bfloat16")


@pytest.mark.slow
def test_peak_memory_in_a_process_of_its_own(monkeypatch):
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("measured on Linux alone")
    monkeypatch.setattr(sys, "argv", ["engine.py", "--batch", "64", "--threads", "1"])
    options = argparse.Namespace(backbone="small_cnn", image_size=8)
    assert engine._peak_in_child("step", options) > 0.5


def test_a_process_that_fails_says_why(tmp_path, monkeypatch):
    (tmp_path / "hop.py").write_text("import sys; raise KeyError(sys.argv[1])")
    monkeypatch.setattr(sys, "argv", ["engine.py"])
    with pytest.raises(harness.Unavailable, match="its process ended with code 1: KeyError: 'hop'"):
        harness.in_fresh_process(str(tmp_path / "hop.py"), "hop")


# timing


def test_functions_take_turns_and_one_that_fails_is_left_out():
    called = []

    def fails():
        raise ValueError("no such\nkernel")

    runs = {name: lambda name=name: called.append(name) for name in "ab"} | {"c": fails}
    timed = harness.time_in_turn(runs, 3, CPU, shortest=0)
    assert "".join(called) == "ababbaab"
    assert {name: len(seconds) for name, seconds in timed.seconds.items()} == {"a": 3, "b": 3}
    assert timed.failed == {"c": "ValueError: no such kernel"}


# precision


def test_precision_of_every_format(tmp_path, monkeypatch):
    table = run(precision, monkeypatch, tmp_path, *TINY, "--images", "6", "--batch", "4")
    rows = table.set_index(["precision", "layout"])
    assert rows["note"]["tf32", "channels_last"] == "needs an NVIDIA GPU"
    bounds = {"float32": 1e-5, "float16": 1e-2, "bfloat16": 1e-1}
    medians = [rows["median"][name, "channels_last"] for name in bounds]
    assert medians == sorted(medians)
    assert all(0 < median < bound for median, bound in zip(medians, bounds.values()))


def test_errors_and_ranks():
    exact = torch.tensor([[1.0, 10.0], [2.0, 30.0], [3.0, 20.0], [4.0, 40.0]])
    norms = exact * torch.tensor([[1.0, 1.5], [1.0, 1.0], [1.0, 1.0], [0.95, 1.0]])
    found = precision.rounding(norms, exact, ["a", "b"])
    assert [found[name] for name in precision.LEVELS] == pytest.approx([0, 0.5, 0.5, 0.5])
    assert found["sum_largest"] == pytest.approx(5 / 11)
    assert (found["off"], found["not_finite"]) == (0.25, 0)
    norms[:, 1] = torch.tensor([40.0, 30.0, 20.0, 10.0])
    found = precision.rounding(norms, exact, ["a", "b"])
    # ranks 4 3 2 1 beside 1 3 2 4: 1 - 6 (9 + 0 + 0 + 9) / (4 * 15)
    assert (found["least_tensor"], found["least_rank"]) == ("b", pytest.approx(-0.8))
    norms[0, 0] = torch.nan
    found = precision.rounding(norms, exact, ["a", "b"])
    assert found["largest"] == torch.inf
    assert found["not_finite"] == 1


# attacks


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in attacks.ATTACKS if name != "cw"])
def test_both_sides_have_the_same_budget(name, monkeypatch):
    pytest.importorskip("foolbox")
    monkeypatch.setattr(attacks, "EPSILON", 0.1)
    monkeypatch.setattr(attacks, "STEP", 0.025)
    pair = attacks.attack_pair(name, trained(), clean(20))
    ours, theirs = (attacks.effect_of(trained(), clean(20), side()) for side in pair.values())
    assert ours[0] > 0.1
    assert abs(ours[0] - theirs[0]) <= 0.1
    assert 0.8 < ours[1] / theirs[1] < 1.05


def test_the_effect_counts_images_that_were_right_before():
    batch, f = clean(30), trained()
    with torch.no_grad():
        right = f(batch.grey / 255).argmax(1) == batch.labels
    assert 0 < (~right).sum() < 10
    unchanged = attacks.effect_of(trained(), batch, batch.grey / 255)
    assert unchanged[:2] == (0, None)
    moved = (batch.grey / 255)[:1].expand_as(batch.grey)  # all look like the first image
    found = attacks.effect_of(trained(), batch, moved)
    expected = right & (batch.labels != trained()(moved[:1]).argmax(1))
    assert found[0] == pytest.approx(float(expected.sum() / right.sum()))


def test_attacks_write_a_row_for_each_side(tmp_path, monkeypatch):
    pytest.importorskip("foolbox")
    words = ("--images", "6", "--rounds", "1", "--attacks", "fgsm")
    table = run(attacks, monkeypatch, tmp_path, *TINY, *words)
    assert list(table["contender"]) == ["gradbench", "foolbox"]
    assert table["speed"][0] > 0
    assert table["weights"][0] == "random"


# corruptions, detectors, routes


def test_corruptions_at_every_level(tmp_path, monkeypatch):
    words = ("--families", "fog,contrast", "--images", "4", "--image-size", "8", "--rounds", "2")
    table = run(corruptions, monkeypatch, tmp_path, *words)
    cells = [(family, level) for family in ("fog", "contrast") for level in range(1, 6)]
    assert list(zip(table["family"], table["level"])) == cells
    assert (table["seconds_low"] <= table["seconds"]).all()


def test_detectors_and_their_sum(tmp_path, monkeypatch):
    sizes = ("--images", "60", "--bank", "90", "--hold-out", "80", "--batch", "16")
    names = "energy,gradient_logistic,gradient_synthetic,rmds_hold_out"
    table = run(detectors, monkeypatch, tmp_path, *TINY, *sizes, "--detectors", names)
    assert list(table["detector"]) == [*names.split(","), "all of them"]
    assert list(table["fits"]) == [1, 5, 1, 1, 8]
    assert table["note"].isna().all()


def test_prices_are_those_that_the_layers_cost():
    measured = routes.time_routes([routes.Layer(2, 3, 4, 8), routes.Layer(2, 6, 5, 1, 0)], 1, CPU)
    prices = routes.fit_prices(measured)
    assert all(price >= 0 for kinds in prices.values() for price in kinds.values())
    assert "of 2 layers" in routes.report(measured, prices)


# options


@pytest.mark.parametrize(
    ("benchmark", "words", "text"),
    [
        (engine, ("--backbone", "resnet19"), "no backbone named 'resnet19': did you mean resnet1"),
        (engine, ("--backbone", "torchvision:resnet19"), "no network of torchvision named"),
        (engine, ("--contenders", "vmp"), "no contender named 'vmp': did you mean vmap"),
        (engine, ("--precision", "tf32"), "tf32 is one of NVIDIA's GPUs"),
        (engine, ("--device", "cuda:9"), "device=cuda:9 is not here"),
        (precision, ("--image-size", "900"), "--image-size 900: at most 427"),
        (attacks, ("--attacks", "fgms"), "no attack to compare named 'fgms': did you mean fgsm"),
        (corruptions, ("--families", "fogg"), "no family of corruptions named 'fogg'"),
        (detectors, ("--detectors", "odin"), "no detector that neither perturbs images"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path, monkeypatch, benchmark, words, text):
    monkeypatch.setattr(sys, "argv", ["x.py", *words, "--out", str(tmp_path)])
    with pytest.raises(GradbenchError, match=text):
        benchmark.main()


def test_weights_and_images_are_the_same_every_time():
    options = harness.options_parser("", ("backbone", "width", "image_size")).parse_args(TINY)
    images = harness.load_images(options, 20)
    assert images.fingerprint == harness.tiles(20, 8).fingerprint
    assert len({image.tobytes() for image in images.images}) == 20
    norms = [squared_norms(*harness.make_backbone(options, images)).values for _ in range(2)]
    assert torch.equal(*norms)
