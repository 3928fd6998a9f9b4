"""Keys of products: those of gradbench's own parts stay what they are, others hold their source.

Products take hours. Whoever changes one of these digests makes every store of every user anew:
that is right where what a step puts out has changed, and its VERSION says so, and nowhere else.
"""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from _dummies import images

from gradbench.backbones.backbone import Backbone, digest
from gradbench.backbones.recipe import Recipe
from gradbench.backbones.small_cnn import SmallCNN
from gradbench.backbones.trained_network import NetworkRequest
from gradbench.challenges.produce import ChallengeSetup
from gradbench.config import compose, expand, group_files, load_member
from gradbench.data.in_distribution import InDistribution
from gradbench.outputs.cached_passes import CachedPasses
from gradbench.run.context import NetworkContext
from gradbench.run.experiment import build_experiment
from gradbench.run.fitting import fit_key, scores_key
from gradbench.store import Store
from gradbench.support.code_keys import stable_name
from gradbench.support.instantiate import instantiate

CPU = torch.device("cpu")
DETECTORS = ("msp", "knn", "gradient", "gradient_oneclass", "mahalanobis_fe")
KEYS = {
    "challenge cure_like_rain": "7d7831d4e2d4941b87e3053bf66a00f617367660",
    "challenge fgsm": "327c1efb5bd3ded03ffcde2acac1898fa41a889f",
    "challenge fog": "1e3f996e96bbc13cd07ac3a9d3ce94aaf71e350d",
    "challenge gaussian_noise": "5ed01e4d0d235f502b5298a3b5b0e7e6c947fc7d",
    "fit gradient_oneclass": "2402fbe09bab9f8c3b0ccaf0927bd41aea85aa93",
    "fit knn": "90d1ddadf83a19f7380fced9e9f22b6e34b68b8f",
    "fit msp": "11205bd380079333a1f0e69161d8ab9f0b4c74b2",
    "network resnet18": "9d8f147c9e3e5eef8ab80c6118bf552e152b114c",
    "network small_cnn": "1b8b516a75695b60abfed3c5d76947f9411d32fd",
    "network torchvision_resnet18": "cb4058937abd79b6e473e095d74586ee411e6ed6",
    "perturbed odin": "cfa784582d35f19048b2f5159cdca42aa620a0e8",
    "scores gradient": "55bbe7e1a8ac2af9b3b564b4c3f5802b16fb8097",
    "scores gradient_oneclass": "e845a935782f455c2372a7189bccb2d77aa8f2b0",
    "scores knn": "639b5f79003c5f8dc204995f6eeb5ed98b13a40f",
    "scores mahalanobis_fe": "4d21b0ea9d7ef9208cb58eff897068d09dc28898",
    "scores msp": "7a69a5b5ff100cd8a66309fb4c78d7c05c772df6",
}
"""As they have been since keys hold the names of classes without their modules."""
WEIGHTS = "11ff4b42e0b97a1bd04dce8743488fc95e2f1e03081c293d44dcce71fc85758c"


@pytest.fixture(scope="module")
def trial(tmp_path_factory):
    words = ["experiment=quickstart", f"detectors=[{','.join(DETECTORS)}]"]
    experiment = build_experiment(compose(words))
    network = SmallCNN(3, 1, 4)
    with torch.no_grad():
        for tensor in network.state_dict().values():
            tensor.zero_()
    f = Backbone(network, [0.4], [0.3], ("a", "b", "c"), (1, 8, 8), {"_target_": "x.SmallCNN"})
    world = InDistribution(*(images(30, seed) for seed in range(4)))
    store = Store(tmp_path_factory.mktemp("store"))
    return NetworkContext(
        experiment, world, SimpleNamespace(backbone=f.eval(), weights="w"), 0, store
    )


def keys(trial) -> dict[str, str]:
    """Return the digests of keys of all kinds by what they are of."""
    train, normal = trial.images.train, trial.images.normal
    found = {}
    for name in ("small_cnn", "resnet18", "torchvision_resnet18"):
        config = compose([f"backbone={name}"])["backbone"]
        order = NetworkRequest(config, Recipe(), 0, (0.4,), (0.3,), CPU)
        found[f"network {name}"] = order.key(train).digest
    for name, content in expand("challenge", ["gaussian_noise", "fog", "fgsm", "cure_like_rain"]):
        challenge = instantiate("challenge", name, content)
        level = 3 if challenge.levels else None
        source = ChallengeSetup(challenge, name, challenge.strength_at(level), weights="w")
        (found[f"challenge {name}"],) = (key.digest for key in source.keys(normal))
    protocol = trial.experiment.protocol
    for name in DETECTORS:
        found[f"scores {name}"] = scores_key(trial, name, normal, train, protocol).digest
        if not trial.experiment.detector(name).learns_from_challenges:
            found[f"fit {name}"] = fit_key(trial, name).digest
    odin = instantiate("detector", "odin", expand("detector", ["odin"])[0][1])
    (further, *_) = odin.planned_passes(("a",))
    again = CachedPasses(trial.f.backbone, "w", normal, trial.store)
    found["perturbed odin"] = again.key(further.what, "i", np.arange(3)).digest
    return found


def test_keys_of_gradbenchs_own_parts_stay_what_they_are(trial):
    assert keys(trial) == KEYS
    assert digest(trial.f.backbone) == WEIGHTS


@pytest.mark.parametrize("group", ["backbone", "challenge", "detector", "protocol"])
def test_no_two_classes_of_a_group_have_one_name_in_keys(group):
    paths = {
        load_member(group, name, resolve=False).get("_target_") for name in group_files(group)
    } - {None}
    assert len({stable_name(path) for path in paths}) == len(paths)
