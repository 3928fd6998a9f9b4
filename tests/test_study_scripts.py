"""The scripts behind results/FINDINGS.md: their numbers are those of the detectors."""

import csv
import importlib
from contextlib import chdir
from pathlib import Path

import numpy as np
import pytest
from _dummies import images
from _runs import TINY, gradbench, rows

SCRIPTS = Path(__file__).parents[1] / "scripts"
WORDS = (
    *(word for word in TINY if not word.startswith(("detectors", "challenges"))),
    "challenges=[gaussian_noise,fgsm,svhn]",
    "challenge.keep=successful",
    "protocol=unsupervised",
    "controls.identity=false",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    here = tmp_path_factory.mktemp("run")
    detectors = "detectors=[energy,vim,gradient_oneclass,gradient_fused,activation_fused]"
    ran = gradbench("run", *WORDS, detectors, cwd=here)
    assert ran.code == 0, ran.err
    return here


def carried_out(folder: Path, name: str) -> list[dict[str, str]]:
    """Run a script on the store of the run, and return the rows that it wrote."""
    with pytest.MonkeyPatch.context() as patch, chdir(folder):
        patch.syspath_prepend(SCRIPTS)
        importlib.import_module("studies").main(name, Path(f"{name}.csv"), list(WORDS))
    with open(folder / f"{name}.csv", newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def measured(folder: Path, challenge: str, detector: str) -> float:
    (row,) = rows(folder, metric="auroc", fold="all", method=detector, challenge=challenge)
    return float(row["value"])


@pytest.mark.parametrize("challenge", ["gaussian_noise", "fgsm"])
def test_energy_joined_with_a_distance_is_the_fused_detector(folder, challenge, capsys):
    own = [r for r in carried_out(folder, "fusions") if r["challenge"].split()[0] == challenge]
    found = {row["distance"]: row for row in own}
    assert set(found) == {
        "",
        "gradient_oneclass",
        "activation_oneclass",
        "knn",
        "vim",
        "rmds",
        "mahalanobis_v",
    }
    joined = {name: float(row["auroc"]) for name, row in found.items()}
    assert joined[""] == pytest.approx(measured(folder, challenge, "energy"), abs=0.01)
    for kind in ("gradient", "activation"):
        fused = measured(folder, challenge, f"{kind}_fused")
        assert joined[f"{kind}_oneclass"] == pytest.approx(fused, abs=0.01)
    alone = float(found["vim"]["auroc_alone"])
    assert alone == pytest.approx(measured(folder, challenge, "vim"), abs=0.01)
    assert "svhn" in capsys.readouterr().err  # a set that is not there is said, and left out


def test_the_gradients_of_all_layers_are_the_one_class_detector(folder):
    found = [r for r in carried_out(folder, "layers") if r["challenge"].startswith("gaussian")]
    (whole,) = (float(row["auroc"]) for row in found if row["part"] == "all")
    detector = measured(folder, "gaussian_noise", "gradient_oneclass")
    assert whole == pytest.approx(detector, abs=0.01)
    parts = [row for row in found if row["part"] != "all"]
    tensors = [int(row["tensors"]) for row in found if row["part"] == "all"]
    assert sum(int(row["tensors"]) for row in parts) == tensors[0]


def test_outliers_are_made_of_the_images(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)
    outliers = importlib.import_module("studies").outliers
    data = images(12, channels=3)
    clean = data.images.astype(float)
    kinds = ("mixup", "halves", "shuffle2", "shuffle4", "phases")
    made = {kind: outliers(data, kind).images for kind in kinds}
    for pixels in made.values():
        assert pixels.shape == clean.shape
        assert pixels.dtype == np.uint8
        assert not (pixels == data.images).all((1, 2, 3)).any()
    for i, label in enumerate(data.labels):
        others = clean[data.labels != label]
        # the weight of the mix, by least squares, for the partner that fits best
        away, moved = others - clean[i], made["mixup"][i] - clean[i]
        weights = (moved * away).sum((1, 2, 3)) / (away**2).sum((1, 2, 3))
        error = np.abs(weights[:, None, None, None] * away - moved).max((1, 2, 3))
        assert error.min() < 1.1
        assert 0.34 < weights[error.argmin()] < 0.66
        half = made["halves"][i]
        upper = (half[:, :4] == clean[i][:, :4]).all()
        assert upper or (half[..., :4] == clean[i][..., :4]).all()
        rest = (slice(None), slice(4, None)) if upper else (..., slice(4, None))
        assert any((half[rest] == other[rest]).all() for other in others)
        for side in (2, 4):
            before = tiles(data.images[i], 8 // side)
            after = tiles(made[f"shuffle{side}"][i], 8 // side)
            assert sorted(before) == sorted(after)
            assert not any(x == y for x, y in zip(before, after))


def tiles(image: np.ndarray, size: int) -> list[bytes]:
    places = range(0, 8, size)
    return [image[:, a : a + size, b : b + size].tobytes() for a in places for b in places]


def test_fusions_are_compared_on_outliers_of_the_hold_out(folder):
    found = carried_out(folder, "choice")
    kinds = {row["outliers"] for row in found}
    assert {"mixup", "shuffle4", "phases"} <= kinds
    ways = ("outliers", "parts", "rectified", "mirrored")
    assert len(found) == len({tuple(row[way] for way in ways) for row in found})
    assert {row["mirrored"] for row in found} == {"True", "False"}
    values = [float(row["auroc"]) for row in found]
    assert 0 <= min(values) < max(values) <= 100
