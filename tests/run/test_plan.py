"""The plan of a run: what is counted, and that nothing is made."""

import re
import shutil

import pytest
from _runs import SMALL, copy_of, gradbench, kept, one_sentence, reference

from gradbench.challenges.attacks.cw import CW as CarliniWagner
from gradbench.config import compose
from gradbench.data.dataset import Dataset
from gradbench.run.experiment import build_experiment
from gradbench.run.plan import plan
from gradbench.store import Store


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return reference(tmp_path_factory.getbasetemp())


def planned(folder, *words):
    """Return the lines of a plan by step and subject."""
    lines = plan(build_experiment(compose([*SMALL, *words])), Store(folder / "store"))
    return {(line.step, line.what.partition(",")[0]): line for line in lines}


def test_before_a_run_nothing_is_there_and_nothing_is_made(tmp_path):
    lines = planned(tmp_path)
    assert set(lines) == {
        ("network", "small_cnn seed 0"),
        ("challenge", "gaussian_noise 5"),
        ("challenge", "fgsm"),
        ("outputs", "digits test"),
        ("outputs", "patches"),
        ("outputs", "gaussian_noise 5"),
        ("outputs", "fgsm"),
        ("outputs", "svhn"),
        ("outputs", "round trip of patches"),
        ("outputs", "digits train"),
        ("outputs", "hold-out"),
    }
    assert all(line.present == 0 for line in lines.values())
    assert lines["network", "small_cnn seed 0"].seconds > 0
    assert lines["outputs", "svhn"].parts == 0
    assert lines["outputs", "svhn"].note.startswith("will not be measured: svhn is not on this")
    assert not list(tmp_path.iterdir())


def test_after_a_run_everything_is_there(finished):
    before = kept(finished)
    for (_, what), line in planned(finished).items():
        assert (line.present, line.seconds) == (line.parts, 0), what
    assert kept(finished) == before


def test_what_is_missing_is_counted(finished, tmp_path):
    here = copy_of(finished, tmp_path)
    for folder, manifest in Store(here / "store").products():
        if manifest["about"].get("set", "").startswith("fgsm/"):
            shutil.rmtree(folder)
    lines = planned(here, "levels=[5,1]", "seeds=[0,1]")
    assert lines["outputs", "fgsm"].present == 0
    assert lines["challenge", "gaussian_noise 1"].present == 0
    assert lines["outputs", "gaussian_noise 1"].seconds > 0
    assert lines["network", "small_cnn seed 1"].present == 0
    assert lines["network", "small_cnn seed 0"].present == 1


def test_the_command(finished, tmp_path):
    ran = gradbench("plan", *SMALL, cwd=tmp_path)
    assert ran.code == 0
    assert re.search("network   small_cnn seed 0  +0 of 1 there", ran.out)
    assert "2 epochs" in ran.out
    assert not list(tmp_path.iterdir())
    ran = gradbench("plan", *SMALL, cwd=finished)
    assert re.search("network   small_cnn seed 0  +1 of 1 there\n", ran.out)
    assert ran.out.splitlines()[-1].endswith("in all, then fitting and measuring")


def test_missing_images_are_one_sentence(tmp_path):
    ran = gradbench("plan", "data.root=nowhere", "data.download=false", cwd=tmp_path)
    assert one_sentence(ran).startswith("cifar10 is not on this machine")
    assert not list(tmp_path.iterdir())


def test_a_plan_downloads_nothing(tmp_path, monkeypatch):
    monkeypatch.delenv("GRADBENCH_OFFLINE", raising=False)
    monkeypatch.setattr(Dataset, "download", lambda self, *_: pytest.fail("a download"))
    online = (f"data.root={tmp_path}", "data.download=true")
    lines = planned(tmp_path, *online)
    assert lines["outputs", "svhn"].note == "not here, would be downloaded"
    ran = gradbench("plan", "dataset=cifar10", *online, cwd=tmp_path)
    assert ran.code == 0, ran.err
    assert "images    cifar10 (train)" in ran.out
    assert "not here, would be downloaded" in ran.out
    assert not list(tmp_path.iterdir())


def test_what_is_read_of_images_that_are_never_measured(finished):
    alone = "controls.memorisation=false"
    lines = planned(finished, "detectors=[knn,gradient_fused_knn,gradient_synthetic]", alone)
    for what in ("digits train", "hold-out", "challenges of gradient_synthetic"):
        line = lines["outputs", what]
        assert line.present == 0
        assert line.seconds > 0
    assert ("outputs", "digits train") not in planned(finished, "detectors=[rmds_hold_out]", alone)


def test_of_training_images_as_many_are_read_as_a_detector_needs(finished):
    detectors = "detectors=[{use: nac, images: 60}]"
    lines = plan(
        build_experiment(compose([*SMALL, detectors, "controls.memorisation=false"])),
        Store(finished / "store"),
    )
    assert "digits train, 60 images" in [line.what for line in lines]


def test_thresholds_share_the_pass_of_the_memorisation(finished):
    title, alone = ("outputs", "hold-out"), "controls.memorisation=false"
    for words in ((), (alone,), ("model.hold_out=0",)):
        line = planned(finished, *words)[title]
        assert line.present == line.parts == 1
    assert planned(finished, alone, "model.hold_out=100")[title].present == 0
    assert title not in planned(finished, "model.hold_out=0", alone)


CW = "challenges=[{use: cw, steps: 5, binary_steps: 4, noisy_negatives: true, noise: 0.025}]"
COPIES = "digits with noise"


def test_attacks_whose_images_leave_early_are_timed_on_a_few(finished, tmp_path, monkeypatch):
    assert planned(tmp_path, CW)["challenge", "cw"].note == "at most, after training"
    attacked, attack = [], CarliniWagner.attack

    def noted(self, clean, *args):
        attacked.append(len(clean.grey))
        return attack(self, clean, *args)

    monkeypatch.setattr(CarliniWagner, "attack", noted)
    line = planned(finished, CW)["challenge", "cw"]
    assert (line.note, attacked) == ("from 10 images", [10])
    assert (line.parts, line.present) == (1, 0)
    # a network that takes seconds for an image is not attacked for minutes
    monkeypatch.setattr("gradbench.run.plan.PATIENCE", 0.0)
    line = planned(finished, CW)["challenge", "cw"]
    assert (line.note, attacked) == ("at most", [10])
    assert line.seconds > 0


def test_noisy_copies_are_listed_once_and_found_after_a_run(finished, tmp_path):
    here = copy_of(finished, tmp_path)
    fgsm = "{use: fgsm, noisy_negatives: true, noise: 0.025}"
    words = (f"{CW[:-1]},{fgsm}]", "detectors=[msp]", "controls.memorisation=false")
    before = planned(here, *words)
    assert before["challenge", COPIES].present == before["outputs", COPIES].present == 0
    assert before["outputs", COPIES].seconds > 0
    assert gradbench("run", *SMALL, *words, cwd=here).code == 0
    after = planned(here, *words)
    for step, title in (("challenge", COPIES), ("outputs", f"{COPIES} test")):
        line = after[step, title]
        assert (line.present, line.seconds) == (line.parts, 0)
    assert ("challenge", COPIES) not in planned(finished)
