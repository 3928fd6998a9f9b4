"""The folder `model/` of a run is all that is needed to have network and detectors again."""

import json

import pytest
import torch
from _runs import SMALL, about, copy_of, gradbench, reference, rows
from safetensors.torch import load_file

from gradbench.backbones.backbone import Backbone, digest
from gradbench.backbones.build import build_network
from gradbench.backbones.checkpoint import load_checkpoint
from gradbench.backbones.trained_network import load_or_train
from gradbench.config import compose
from gradbench.data.in_distribution import load_in_distribution
from gradbench.outputs.read import compute_outputs
from gradbench.run.context import NetworkContext, network_request
from gradbench.run.experiment import build_experiment
from gradbench.run.fitting import fold_scores
from gradbench.store import Store
from gradbench.support.instantiate import instantiate


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return reference(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def told(finished):
    return json.loads((finished / "run/model/s0/model.json").read_text())


@pytest.fixture
def rebuilt(finished, told):
    """Return the network, made from the folder alone."""
    network = build_network(told["network"])
    load_checkpoint(network, finished / "run/model/s0/network.safetensors")
    return Backbone(
        network, told["mean"], told["std"], told["classes"], told["shape"], told["network"]
    ).eval()


@pytest.fixture
def world(finished):
    """Return experiment, store, network and clean images of the run; nothing is made for them."""
    torch.set_num_threads(1)
    experiment = build_experiment(compose(SMALL))
    store = Store(finished / "store")
    images = load_in_distribution(experiment.dataset, experiment.data, experiment.config["limit"])
    f = load_or_train(network_request(experiment, images, 0), images.train, images.test, store)
    return NetworkContext(experiment, images, f, 0, store)


def test_the_network_gives_the_logits_of_the_run(told, rebuilt, world):
    stored, reads = world.normal, world.experiment.reads
    fresh = compute_outputs(rebuilt, stored.images, slice(0, len(stored.images)), reads).values
    for name in reads:
        assert torch.equal(fresh[name], stored.outputs[name]), name
    assert digest(rebuilt) == told["weights"] == world.f.weights
    assert world.store.made == []


def test_what_is_told_of_the_network(finished, told):
    assert told["classes"] == list("0123456789")
    assert told["shape"] == [1, 8, 8]
    assert told["in_dist"] == "digits"
    (row,) = rows(finished, method="f")
    assert float(row["value"]) == pytest.approx(100 * told["accuracy"], abs=1e-5)


def test_every_detector_is_there_and_fitted_where_it_is_fitted(told):
    found = {(d["name"], d["fitted_on"], bool(d["state"])) for d in told["detectors"]}
    assert found == {
        ("msp", "", False),
        *(("gradient_logistic", n, True) for n in ("patches", "gaussian_noise 5", "fgsm")),
    }


@pytest.mark.parametrize("title", ["fgsm", "gaussian_noise 5", "patches"])
def test_a_kept_detector_gives_the_scores_of_the_first_fold(finished, told, world, title):
    (entry,) = (d for d in told["detectors"] if d["fitted_on"] == title)
    state = load_file(finished / "run/model/s0" / entry["state"])
    detector = instantiate("detector", entry["name"], entry["config"]).load(state)

    (cell,) = (c for c in world.experiment.cells if c.title == title)
    sides = [world.normal, world.read_outputs(world.challenge(cell).images)]
    kept = fold_scores(world, entry["name"], *sides, world.experiment.protocol)
    first = kept.folds()[0]
    assert world.store.made == []
    fold = kept.parts[0]
    for side, index, scores in (
        (sides[0], fold.normal, first.normal),
        (sides[1], fold.abnormal, first.abnormal),
    ):
        again = detector.score({n: v[torch.from_numpy(index)] for n, v in side.outputs.items()})
        assert again.double().tolist() == scores.tolist()


def test_the_kept_network_is_a_checkpoint_for_another_run(finished, tmp_path):
    here = copy_of(finished, tmp_path)
    (here / "run").rename(here / "before")
    word = "backbone.checkpoint=before/model/s0/network.safetensors"
    ran = gradbench("run", *SMALL, word, cwd=here)
    assert ran.code == 0, ran.err
    assert about(here)["time"]["products_made"] == 0
    (row,) = rows(here, method="f")
    assert row["note"] == "network: network.safetensors"
    assert rows(here, metric="auroc") == rows(finished, metric="auroc")
