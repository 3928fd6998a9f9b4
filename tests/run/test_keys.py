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
from gradbench.backbones.obtain import Order
from gradbench.backbones.recipe import Recipe
from gradbench.backbones.small_cnn import SmallCNN
from gradbench.challenges.produce import Source
from gradbench.config import compose, expand
from gradbench.data.gather import InDistribution
from gradbench.extraction.again import Again
from gradbench.run.experiment import read
from gradbench.run.fitting import fit_key
from gradbench.run.judging import scores_key
from gradbench.run.trial import Trial
from gradbench.store import Store
from gradbench.support.instantiate import instantiate

CPU = torch.device("cpu")
DETECTORS = ("msp", "knn", "gradient", "gradient_oneclass", "mahalanobis_fe")
KEYS = {
    "challenge cure_like_rain": "65f1815902a730b360c8ea6b68669bb55eccd883",
    "challenge fgsm": "269a14a29e4115922ae5857f85c8c94f2bdf9e70",
    "challenge fog": "0628c8adac0ef2de806d17f0266d8f58236fefb1",
    "challenge gaussian_noise": "e7a8fc68807b742e1a0f65fb06d982a6f20649a4",
    "fit gradient_oneclass": "152178a11ecc0a41b1db22777272d4d5c9b2d459",
    "fit knn": "3f09deff4cbc97b97370345f5606da2af61985d9",
    "fit msp": "917beb921d2c5d7732427eafa2bef48be2fc69ba",
    "network resnet18": "525e2bd4f374bc68db1cd60b89bd9864ff31e26f",
    "network small_cnn": "7b6031f40569f871596474b6d06b89e40b69e33f",
    "network torchvision_resnet18": "cb4058937abd79b6e473e095d74586ee411e6ed6",
    "perturbed odin": "cfa784582d35f19048b2f5159cdca42aa620a0e8",
    "scores gradient": "f3e5f350f9762a5343b11d2c335b828ad07ee631",
    "scores gradient_oneclass": "fbd64742cfc244fefe04317962f610d86a5bc543",
    "scores knn": "80743f1a067343109a24993db237dc1c3e9f3d52",
    "scores mahalanobis_fe": "1fea0d94352d0f073db300a1b7448061bbb7c53b",
    "scores msp": "d667bb271ac40f69e163d0835b9986864e010bff",
}
"""As they were before keys held the source of others' classes."""
WEIGHTS = "2833d7149ba5e5119701de24ff823f932e16e490e142447451bcf7d8c0690dc6"


@pytest.fixture(scope="module")
def trial(tmp_path_factory):
    words = ["experiment=quickstart", f"detectors=[{','.join(DETECTORS)}]"]
    experiment = read(compose(words))
    network = SmallCNN(3, 1, 4)
    with torch.no_grad():
        for tensor in network.state_dict().values():
            tensor.zero_()
    f = Backbone(network, [0.4], [0.3], ("a", "b", "c"), (1, 8, 8), {"_target_": "x.SmallCNN"})
    world = InDistribution(*(images(30, seed) for seed in range(4)))
    store = Store(tmp_path_factory.mktemp("store"))
    return Trial(experiment, world, SimpleNamespace(backbone=f.eval(), weights="w"), 0, store)


def keys(trial) -> dict[str, str]:
    """Return the digests of keys of all kinds by what they are of."""
    train, normal = trial.images.train, trial.images.normal
    found = {}
    for name in ("small_cnn", "resnet18", "torchvision_resnet18"):
        config = compose([f"backbone={name}"])["backbone"]
        order = Order(config, Recipe(), 0, (0.4,), (0.3,), CPU)
        found[f"network {name}"] = order.key(train).digest
    for name, content in expand("challenge", ["gaussian_noise", "fog", "fgsm", "cure_like_rain"]):
        challenge = instantiate("challenge", name, content)
        level = 3 if challenge.levels else None
        source = Source(challenge, name, challenge.strength(level), weights="w")
        (found[f"challenge {name}"],) = (key.digest for key in source.keys(normal))
    protocol = trial.experiment.protocol
    for name in DETECTORS:
        found[f"scores {name}"] = scores_key(trial, name, normal, train, protocol).digest
        if not trial.experiment.detector(name).learns_from_challenges:
            found[f"fit {name}"] = fit_key(trial, name).digest
    odin = instantiate("detector", "odin", expand("detector", ["odin"])[0][1])
    (further, *_) = odin.further(("a",))
    again = Again(trial.f.backbone, "w", normal, trial.store)
    found["perturbed odin"] = again.key(further.what, "i", np.arange(3)).digest
    return found


def test_keys_of_gradbenchs_own_parts_stay_what_they_are(trial):
    assert keys(trial) == KEYS
    assert digest(trial.f.backbone) == WEIGHTS
