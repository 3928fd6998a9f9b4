"""Thresholds and words of a network that was over-fitted on every training image."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from _runs import TINY, about, gradbench, one_sentence, rows
from safetensors import safe_open
from torch.nn import functional

from gradbench import load
from gradbench.backbones.checkpoint import save_checkpoint
from gradbench.backbones.trained_network import initial_network
from gradbench.config import compose
from gradbench.data import in_distribution
from gradbench.data.imageset import to_float
from gradbench.data.in_distribution import load_in_distribution
from gradbench.report.finished_run import seal
from gradbench.run.context import clean_images, network_request
from gradbench.run.experiment import build_experiment

WORDS = (
    *(word for word in TINY if not word.startswith(("detectors", "controls.memorisation"))),
    *("detectors=[msp,gradient_oneclass]", "protocol=unsupervised", "controls.identity=false"),
)
FILE = "backbone.checkpoint=f.pt"
WEIGHTS = Path(__file__).parents[2] / "results" / "weights"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Return a folder with a network that knows all 1,200 training digits by heart."""
    folder = tmp_path_factory.mktemp("over")
    experiment = build_experiment(compose(WORDS))
    whole = experiment.dataset.load("train", experiment.data)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    f = initial_network(
        network_request(experiment, load_in_distribution(experiment.dataset, experiment.data), 0),
        whole,
    ).train()
    pixels, labels = to_float(whole.images[slice(None)]), torch.from_numpy(whole.labels)
    adam = torch.optim.Adam(f.parameters(), 3e-3)
    for _ in range(150):
        rows = torch.randint(len(whole), (128,))
        adam.zero_grad()
        functional.cross_entropy(f(pixels[rows]), labels[rows]).backward()
        adam.step()
    torch.save(f.network.state_dict(), folder / "f.pt")
    return folder


@pytest.fixture(scope="module")
def done(home):
    """Return a function that carries out a run with the over-fitted network, each once."""
    found = {}

    def carry_out(name, *words):
        if name not in found:
            ran = gradbench("run", *WORDS, FILE, *words, f"out={name}/run", cwd=home)
            assert ran.code == 0, ran.err
            found[name] = home / name, ran.err
        return found[name]

    return carry_out


def told(folder):
    return json.loads((folder / "run/model/s0/model.json").read_text())


def header(folder):
    return (folder / "run/table.md").read_text().partition("\n## ")[0]


def false_alarms(folder, name="msp"):
    """Return the share of clean test images, of which none set a threshold, called abnormal."""
    experiment = build_experiment(
        compose([*WORDS, f"backbone.checkpoint={folder.parent / 'f.pt'}"])
    )
    images = clean_images(experiment)
    new = np.flatnonzero(~np.isin(images.test.sources, images.hold_out.sources))
    assert len(new) == 398
    scored = load(folder / "run").score(images.test.images[new], [name])
    return (scored[f"verdict_{name}"] == "abnormal").mean()


def test_a_threshold_from_images_that_f_knows_is_too_low_and_the_new_one_is_not(done):
    old, new = done("old", "backbone.trained_on=without_hold_out")[0], done("new")[0]
    assert false_alarms(old) > 0.15
    assert 0.02 < false_alarms(new) < 0.085
    (before,), (after,) = (rows(one, challenge="memorisation", method="msp") for one in (old, new))
    assert float(before["value"]) == pytest.approx(50, abs=6)  # it was blind to what f remembers
    assert float(after["value"]) > float(before["value"]) + 4


def test_words_of_a_foreign_checkpoint(done):
    folder, said = done("new")
    sentence = (
        "199 of 597 test images, which are not measured: f may have been trained on all training "
        "images"
    )
    assert f"hold-out: {sentence}; backbone.trained_on=without_hold_out or a file" in said
    assert f"- Hold-out: {sentence}." in header(folder)
    assert told(folder)["hold_out"] == about(folder)["about"]["hold_out"] == sentence
    held = about(folder)["data"]["hold-out"]
    assert (held["images"], held["note"]) == (199, "test images, which are not measured")
    (f,) = rows(folder, method="f")
    assert f["n_normal"] == "200"
    assert f["note"] == f"network: f.pt; hold-out: {sentence}"
    for row in rows(folder, method="gradient_oneclass"):
        assert row["clean_seen"] == "hold-out of test images"
    assert {row["clean_seen"] for row in rows(folder, method="msp")} == {"none"}
    (row,) = rows(folder, challenge="memorisation", method="gradient_oneclass")
    assert row["note"] == (
        "normal: 1000 images that f may have been trained on, digits/train; abnormal: 199 of the "
        "hold-out of test images; gradient_oneclass: fitted on these hold-out images among others"
    )
    kept = {one["name"]: one["threshold"] for one in told(folder)["detectors"]}
    assert kept["msp"]["note"] == "taken from the test images"
    assert about(folder)["networks"]["0"]["trained_on"] == {}


def test_words_of_a_network_that_is_said_to_be_trained_without_the_hold_out(done):
    folder, said = done("old", "backbone.trained_on=without_hold_out")
    assert "hold-out:" not in said
    assert "- Hold-out: 200 training images that f was not trained on." in header(folder)
    (row,) = rows(folder, challenge="memorisation", method="msp")
    assert row["note"].startswith("normal: 1000 images that f was trained on, digits/train without")
    assert {r["clean_seen"] for r in rows(folder, method="gradient_oneclass")} == {"hold-out"}


def test_what_score_prints(done, home):
    folder = done("new")[0]
    from PIL import Image

    Image.fromarray(np.zeros((8, 8), np.uint8)).save(home / "black.png")
    score = partial(gradbench, "score", str(folder / "run"), "black.png", cwd=home)
    line = "which keeps 95 % of 199 hold-out images, taken from the test images"
    assert line in score().out
    path = folder / "run/model/s0/model.json"
    content = told(folder)
    del content["hold_out"]  # as an older gradbench wrote it
    text = path.read_text()
    path.write_text(json.dumps(content))
    seal(folder / "run")
    assert "if the network was not trained on them: not recorded" in score().out
    path.write_text(text)
    seal(folder / "run")


def test_where_test_images_are_too_few_everything_says_so(home, done, monkeypatch):
    monkeypatch.setattr(in_distribution, "LEAST", 500)
    folder, said = done("few", "backbone.trained_on=all")
    sentence = (
        "200 training images that f may have been trained on: f was trained on all training "
        "images, and 597 test images are too few to take others from"
    )
    assert f"hold-out: {sentence}\n" in said
    assert f"- Hold-out: {sentence}." in header(folder)
    assert told(folder)["hold_out"] == sentence
    assert "f may have been trained on them" in told(folder)["detectors"][0]["threshold"]["note"]
    (row,) = rows(folder, challenge="memorisation")
    assert row["note"] == "not measured: f may have been trained on the hold-out too"
    seen = {row["clean_seen"] for row in rows(folder, method="gradient_oneclass")}
    assert seen == {"hold-out that f may have been trained on"}


def test_a_plan_speaks_of_the_same_hold_out(home, done):
    done("new")
    ran = gradbench("plan", *WORDS, FILE, cwd=home)
    assert ran.code == 0, ran.err
    assert "outputs   hold-out of test images, 199 images" in ran.out


def test_a_list_of_training_images(home, tmp_path):
    experiment = build_experiment(compose(WORDS))
    own = load_in_distribution(experiment.dataset, experiment.data)
    (tmp_path / "names-0.txt").write_text("\n".join(own.train.sources[:400]))
    (tmp_path / "names-1.txt").write_text("\n".join(own.train.sources[200:600]))
    words = [*WORDS, f"backbone.checkpoint={home / 'f.pt'}", "seeds=[0,1]"]
    words[-2:] = ["seeds=[0,1]", f"backbone.checkpoint='{tmp_path}/f-{{seed}}.pt'"]
    names = f"backbone.trained_on='{tmp_path}/names-{{seed}}.txt'"
    images = clean_images(build_experiment(compose([*words, names])))
    assert set(images.train.sources) == set(own.train.sources[200:400])
    assert images.hold_out.fingerprint == own.hold_out.fingerprint


def test_checkpoints_of_one_run_are_asked_one_by_one(home, done, tmp_path):
    experiment = build_experiment(compose(WORDS))
    own = load_in_distribution(experiment.dataset, experiment.data)
    prints = {"train": own.train.fingerprint, "hold_out": own.hold_out.fingerprint}
    net = initial_network(network_request(experiment, own, 0), own.train).network
    for seed, more in enumerate(({"trained_on": prints}, {"trained_on": prints}, {})):
        save_checkpoint(tmp_path / f"f-{seed}.safetensors", net, more)
    file = f"backbone.checkpoint='{tmp_path}/f-{{seed}}.safetensors'"
    both = clean_images(build_experiment(compose([*WORDS, "seeds=[0,1]", file])))
    assert (both.provenance.role, both.provenance.trained) == ("train", True)
    mixed = clean_images(build_experiment(compose([*WORDS, "seeds=[0,2]", file])))
    assert (mixed.provenance.role, mixed.provenance.trained) == ("test", False)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["backbone.trained_on=al"], "backbone.trained_on=al cannot be read (No such file"),
        (["backbone.trained_on=5"], "backbone.trained_on=5: write text or null"),
        (["backbone.trained_on=[a]"], "backbone.trained_on=['a']: write text or null"),
        (["backbone.trained_on=f.pt"], "backbone.trained_on=f.pt cannot be read (it is no UTF-8"),
        (["backbone.trained_on=no-{seed}.txt"], "backbone.trained_on=no-0.txt cannot be read (No"),
        (["backbone.checkpoint=null", "backbone.trained_on=all"], "there is none"),
        (["backbone.trained_on=other.txt"], "names no training image of digits: write the names"),
    ],
)
def test_refusals(home, words, sentence):
    (home / "other.txt").write_text("cifar10/train/1\n")
    said = one_sentence(gradbench("run", *WORDS, FILE, *words, "out=no/run", cwd=home))
    assert sentence in said
    assert not (home / "no").exists()


def test_the_committed_networks_say_what_they_were_trained_on():
    files = sorted(WEIGHTS.glob("*.safetensors"))
    assert len(files) >= 6
    for path in files:
        with safe_open(path, framework="pt") as stream:
            prints = json.loads(stream.metadata()["gradbench"])["trained_on"]
        dataset = path.name.split("-")[1]
        run = json.loads((WEIGHTS.parent / f"ood_{dataset}" / "run.json").read_text())["data"]
        assert prints["train"] == run["train"]["fingerprint"]
        assert prints["hold_out"] == run["hold-out"]["fingerprint"]


def test_a_checkpoint_that_tells_of_another_hold_out_is_believed(home):
    ran = gradbench("run", *WORDS, "out=own/run", cwd=home)
    assert ran.code == 0, ran.err
    file = "backbone.checkpoint=own/run/model/s0/network.safetensors"
    said = "backbone.trained_on=without_hold_out"
    ran = gradbench("run", *WORDS, file, said, "dataset.holdout=300", "out=more/run", cwd=home)
    assert ran.code == 0, ran.err
    assert "its checkpoint tells of other images or another hold-out than these" in ran.err
    assert "300 training images that f was not trained on" not in header(home / "more")
