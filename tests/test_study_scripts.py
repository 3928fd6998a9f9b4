"""The scripts behind results/FINDINGS.md: their numbers are those of the detectors."""

import csv
import importlib
from contextlib import chdir
from pathlib import Path

import pytest
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
