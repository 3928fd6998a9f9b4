"""`gradbench bench precision`: its numbers, and the command."""

import csv
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from _runs import gradbench, one_sentence
from torch import nn

from gradbench.backbones.checkpoint import save_checkpoint
from gradbench.backbones.small_cnn import SmallCNN
from gradbench.bench import formats, real
from gradbench.bench.agreement import relative
from gradbench.bench.rounding import rounding, spearman
from gradbench.bench.settings import Settings
from gradbench.errors import GradbenchError
from gradbench.gradients import squared_norms

SMALL = (
    *("bench", "precision", "--backbone", "small_cnn", "--image-size", "8", "--images", "6"),
    *("--batch", "4", "--threads", "1", "--out", "out"),
)
NAME = "precision-small_cnn-w16-b4-8px-cpu-1thread-random_weights-6_random_images"
CPU = Settings("small_cnn", width=4, batch=4, image_size=8, threads=1, precision="")


def read(path: Path) -> dict[str, dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as stream:
        return {f"{r['precision']} {r['layout']}": r for r in csv.DictReader(stream)}


def test_errors_and_ranks():
    exact = torch.tensor([[1.0, 10.0], [2.0, 30.0], [3.0, 20.0], [4.0, 40.0]])
    norms = exact * torch.tensor([[1.0, 1.5], [1.0, 1.0], [1.0, 1.0], [0.95, 1.0]])
    found = rounding(norms, exact, ["a", "b"])
    assert found.values == pytest.approx({"median": 0, "p90": 0.5, "p99": 0.5, "largest": 0.5})
    assert found.sums["largest"] == pytest.approx(5 / 11)
    assert (found.off, found.not_finite) == (0.25, 0)
    assert (found.rank, found.least_rank) == (pytest.approx(1), pytest.approx(1))
    norms[:, 1] = torch.tensor([40.0, 30.0, 20.0, 10.0])
    found = rounding(norms, exact, ["a", "b"])
    # ranks 4 3 2 1 beside 1 3 2 4: 1 - 6 (9 + 0 + 0 + 9) / (4 * 15)
    assert (found.least_tensor, found.least_rank) == ("b", pytest.approx(-0.8))


def test_norms_that_are_not_finite_count_as_infinitely_wrong():
    exact = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    for bad in (torch.inf, torch.nan):
        norms = exact.clone()
        norms[0, 0] = bad
        found = rounding(norms, exact, ["a", "b"])
        assert found.values["largest"] == found.sums["largest"] == torch.inf
        assert found.values["median"] == 0
        assert (found.off, found.not_finite) == (0.5, 1)
        assert found.rank == pytest.approx(-1)


def test_negligible_and_constant_tensors_have_no_rank():
    exact = torch.tensor([[1.0, 1e-9, 5.0], [2.0, 2e-9, 5.0], [3.0, 3e-9, 5.0]])
    norms = exact * torch.tensor([1.0, -1.0, 1.0])
    found = rounding(norms, exact, ["a", "negligible", "constant"])
    assert (found.least_tensor, found.least_rank) == ("a", pytest.approx(1))
    assert found.values["largest"] < 1e-2
    assert spearman(torch.ones(3), torch.arange(3)) is None
    assert rounding(norms[:1], exact[:1], ["a", "b", "c"]).least_rank is None


def test_every_format_is_compared_with_float64():
    model, images = real.make(CPU, 6, None, None)
    exact = squared_norms(model, images, precision="float64")
    found = {str(one.format): one for one in formats.measure(model, images, CPU)}
    assert found["float64 contiguous"].rounding is None
    assert found["tf32 channels_last"].note == "needs an NVIDIA GPU"
    bounds = {"float32 channels_last": 1e-5, "float32 contiguous": 1e-5,
              "float16 channels_last": 1e-2, "bfloat16 channels_last": 1e-1}  # fmt: skip
    for name, bound in bounds.items():
        one = found[name]
        got = squared_norms(model, images, chunk=4, precision=one.format.precision,
                            channels_last=one.format.channels_last)  # fmt: skip
        again = rounding(got.values, exact.values, exact.names)
        for part in ("values", "sums"):  # the float64 values agree up to their last bits
            assert getattr(one.rounding, part) == pytest.approx(getattr(again, part), 1e-6), name
        assert replace(one.rounding, values={}, sums={}) == replace(again, values={}, sums={})
        assert 0 < one.rounding.values["median"] < bound
        assert (one.tensors, one.rounding.not_finite) == (len(exact.names), 0)
        assert one.time.low <= one.time.median <= one.time.high
    half = [found[f"{name} channels_last"].rounding.values["median"] for name in
            ("float32", "float16", "bfloat16")]  # fmt: skip
    assert half == sorted(half)
    assert found["float32 channels_last"].time.median == 1
    assert next(model.parameters()).dtype == torch.float32


def test_a_format_that_fails_is_a_line_and_float64_a_fault(monkeypatch):
    model, images = real.make(CPU, 6, None, None)
    right = squared_norms

    def without(broken):
        def norms(model, images, *, precision, **options):
            if precision == broken:
                raise RuntimeError("no such kernel")
            return right(model, images, precision=precision, **options)

        return norms

    monkeypatch.setattr(formats, "squared_norms", without("float16"))
    found = {one.format.precision: one for one in formats.measure(model, images, CPU)}
    assert found["float16"].note == "RuntimeError: no such kernel"
    assert found["float16"].rounding is found["float16"].time is None
    assert found["bfloat16"].rounding is not None
    monkeypatch.setattr(formats, "squared_norms", without("float32"))
    found = {one.format.precision: one for one in formats.measure(model, images, CPU)}
    assert found["bfloat16"].rounding is not None
    assert found["bfloat16"].time is None
    monkeypatch.setattr(formats, "squared_norms", without("float64"))
    with pytest.raises(GradbenchError, match=r"^float64, with which all is compared, failed: Run"):
        formats.measure(model, images, CPU)


def test_an_input_of_a_relu_within_rounding_of_zero_is_what_largest_errors_come_from():
    torch.manual_seed(0)
    first, second = nn.Linear(2, 2, bias=False), nn.Linear(2, 3)
    model = nn.Sequential(first, second, nn.ReLU(), nn.Linear(3, 3)).eval()
    with torch.no_grad():
        first.weight[0] = torch.tensor([1.0, 2.0**-25])
        second.weight[0] = torch.tensor([1.0, 0.0])
        second.bias[0] = -1.0
    images = torch.rand(8, 2) + torch.tensor([0.1, 0])
    images[-1] = 1.0  # reaches the ReLU as 2^-25, or as 0 in float32
    assert model[:2](images)[-1, 0] == 0
    exact = squared_norms(model, images, precision="float64").values
    errors = relative(squared_norms(model, images).values, exact).amax(1)
    assert errors[:-1].max() < 1e-5
    assert errors[-1] > 1e-3


def test_the_command_prints_and_writes(tmp_path):
    ran = gradbench(*SMALL, cwd=tmp_path)
    assert ran.code == 0, ran.err
    assert [p.name for p in (tmp_path / "out").iterdir()] == [f"{NAME}.csv"]
    assert ran.out.startswith("small_cnn, weights: random; 6 images of 8 pixels, random; ")
    assert ran.out.endswith(f"\nwritten to out/{NAME}.csv\n")
    rows = read(tmp_path / "out" / f"{NAME}.csv")
    for name, row in rows.items():
        assert f"\n{name} " in ran.out
        assert (row["weights"], row["source"], row["images"]) == ("random", "random", "6")
        assert (row["backbone"], row["width"], row["image_size"]) == ("small_cnn", "16", "8")
        assert row["command"] == f"gradbench {' '.join(SMALL)}"
        assert row["torch"]
        assert row["processor"]
    assert rows["tf32 channels_last"]["note"] in ran.out
    row = rows["bfloat16 channels_last"]
    errors = [float(row[name]) for name in ("median", "p90", "p99", "largest")]
    assert errors == sorted(errors)
    assert 1e-4 < errors[0] < 0.1
    assert float(row["sum_median"]) > 0
    assert float(row["least_rank"]) <= 1
    assert row["tensors"] == "11"


def test_a_trained_network_and_images_of_the_user(tmp_path):
    torch.manual_seed(1)
    about = {"classes": ["a", "b", "c"], "mean": [0.5] * 3, "std": [0.25] * 3}
    network = SmallCNN(3, 3, 4)
    save_checkpoint(tmp_path / "f.safetensors", network, about)
    pixels = np.random.default_rng(0).integers(0, 256, (30, 32, 32, 3), np.uint8)
    (tmp_path / "sets/cifar10").mkdir(parents=True)
    np.savez(tmp_path / "sets/cifar10/test.npz", images=pixels, labels=np.arange(30) % 10)
    words = ("--width", "4", "--checkpoint", "f.safetensors", "--dataset", "cifar10")
    words = (
        *SMALL[:4],
        *words,
        "--data",
        "sets",
        "--images",
        "5",
        "--threads",
        "1",
        "--out",
        "out",
    )
    ran = gradbench(*words, cwd=tmp_path)
    assert ran.code == 0, ran.err
    (path,) = (tmp_path / "out").iterdir()
    assert path.name == "precision-small_cnn-w4-b64-32px-cpu-1thread-f_weights-5_cifar10_images.csv"
    row = read(path)["float32 contiguous"]
    assert (row["weights"], row["source"], row["status"]) == ("f", "cifar10/test", "part")
    settings = Settings("small_cnn", width=4, image_size=32, threads=1, precision="")
    images = real.images_of("cifar10", tmp_path / "sets", 5, None, settings)
    assert images.sources.tolist() == [f"cifar10/test/{i}" for i in (0, 6, 12, 18, 24)]
    model, given = real.make(settings, 5, tmp_path / "f.safetensors", images)
    assert torch.equal(model.network.fc.weight, network.fc.weight)
    torch.testing.assert_close(given[1], torch.tensor(pixels[6]).permute(2, 0, 1) / 255)
    torch.testing.assert_close(model(given), network.eval()((given - 0.5) / 0.25))
    small = real.images_of("cifar10", tmp_path / "sets", 50, 16, settings)
    assert (len(small), small.shape) == (30, (3, 16, 16))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--precision", "float16"), "gradbench bench precision: unrecognized arguments: --prec"),
        (("--data", "sets"), "--data is the folder of data sets: name one of them with --dataset"),
        (("--dataset", "cifar11"), "no dataset named 'cifar11': did you mean cifar10"),
        (("--dataset", "cifar10", "--data", "nowhere"), "cifar10 is not on this machine: put"),
        (("--checkpoint", "f.pt"), "backbone.checkpoint=f.pt: there is no such file"),
        (("--images", "0"), "gradbench bench precision: argument --images: 0 is no whole"),
    ],
)
def test_wrong_words_are_answered_in_a_sentence(tmp_path, words, sentence):
    assert one_sentence(gradbench(*SMALL, *words, cwd=tmp_path)).startswith(sentence)


def test_help_is_quick():
    code = (
        "import sys; from gradbench.cli import main\n"
        "try: main(['bench', 'precision', '--help'])\n"
        "except SystemExit: pass\n"
        "print('torch' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ran.stdout.endswith("False\n"), ran.stderr
    assert "--checkpoint FILE" in ran.stdout
    assert "--precision" not in ran.stdout
