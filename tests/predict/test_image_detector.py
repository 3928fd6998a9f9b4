"""A detector alone: the scores that a run gives, on a model and a tensor, an array or a loader."""

import numpy as np
import pytest
import torch
from _dummies import images, network
from torch.utils.data import DataLoader, TensorDataset

import gradbench
from gradbench.config import group_files, load_member
from gradbench.errors import GradbenchError
from gradbench.methods.base import Samples
from gradbench.methods.knn import KNN
from gradbench.outputs.read import read_outputs

NAMES = [
    name
    for name in group_files("detector")
    if "members" not in load_member("detector", name) and name != "gradient_synthetic"
]
NAMES = [name for name in NAMES if not name.startswith("ensemble_")]


@pytest.fixture(scope="module")
def f():
    backbone = network(width=8)
    backbone.network.stage3 = torch.nn.Dropout(0.3).eval()  # in place of an identity
    return backbone


def pixels(count, seed=0):
    return torch.from_numpy(images(count, seed).images).float() / 255


def noise(count, seed=0):
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", NAMES)
def test_every_detector_fits_and_predicts(f, name):
    detector = gradbench.detector(name)
    learns = detector.detector.learns_from_challenges
    labels = torch.arange(150) % 3
    abnormal = noise(90) if learns else None
    assert detector.fit(f, pixels(150), abnormal, labels=labels) is detector
    scores = detector.predict(noise(20, 1))
    assert scores.shape == (20,)
    assert scores.dtype == torch.float64
    assert scores.isfinite().all()


def test_what_one_network_cannot_give_is_refused(f):
    with pytest.raises(GradbenchError, match=r"^members are the logits of all networks of a run"):
        gradbench.detector("ensemble_variance").fit(f, pixels(9)).predict(noise(2))
    with pytest.raises(GradbenchError, match=r"^SmallCNN has no dropout"):
        gradbench.detector("mc_dropout").fit(network(), pixels(9)).predict(noise(2))


def test_the_scores_are_those_of_the_outputs(f):
    clean, new = pixels(150), noise(70)
    found = gradbench.detector("knn", k=3).fit(f, clean).predict(new)
    bank, empty = read_outputs(f, clean, ["features"]), Samples.normal({})
    expected = KNN(3).fit(bank, empty, empty).score(read_outputs(f, new, ["features"]))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_no_more_training_images_count_than_are_needed(f):
    clean, labels = pixels(150), torch.arange(150) % 3
    whole, few = (
        gradbench.detector("nac", full=[1e6] * 4, images=count).fit(f, clean, labels=labels)
        for count in (1000, 30)
    )
    counted = [
        sum(layer.coverage.sum() for layer in one.detector.layers.values()) for one in (whole, few)
    ]
    assert float(counted[0] / counted[1]) == pytest.approx(5)


def test_arrays_loaders_and_plain_networks(f):
    data = images(100)
    labels = torch.from_numpy(data.labels)
    loader = DataLoader(TensorDataset(pixels(100), labels), batch_size=32)
    first = gradbench.detector("mahalanobis_v").fit(f, pixels(100), labels=labels)
    scores = first.predict(noise(10))
    for clean, given in ((data.images, labels), (loader, None)):
        other = gradbench.detector("mahalanobis_v").fit(f, clean, labels=given)
        torch.testing.assert_close(other.predict(noise(10).numpy()), scores)
    plain = gradbench.detector("mahalanobis_v")
    plain.fit(f.network, pixels(100), labels=labels, mean=[0.4], std=[0.3])
    for new in (noise(10), TensorDataset(noise(10))):  # a loader yields tensors, or lists of one
        torch.testing.assert_close(plain.predict(DataLoader(new, batch_size=3)), scores)


class Answers(torch.nn.Module):
    """A network whose logits come in a container."""

    def __init__(self, container):
        super().__init__()
        self.fc, self.container = torch.nn.Linear(64, 3), container

    def forward(self, x):
        return self.container(self.fc(x.flatten(1)))


def test_networks_with_several_outputs():
    f = Answers(lambda z: {"loss": None, "logits": z}).eval()
    assert gradbench.detector("msp").fit(f, noise(3)).predict(noise(5)).shape == (5,)
    with pytest.raises(GradbenchError, match="gives tuple, in which nothing is called logits"):
        gradbench.detector("msp").fit(Answers(lambda z: (z, z)).eval(), noise(3))


def test_a_fit_on_one_seed_is_repeated(f):
    def fitted(seed):
        detector = gradbench.detector("gradient", epochs=3)
        return detector.fit(f, pixels(60), noise(60), seed=seed).predict(noise(5, 1))

    assert torch.equal(fitted(1), fitted(1))
    assert not torch.equal(fitted(1), fitted(2))


@pytest.mark.parametrize(
    ("use", "text"),
    [
        (lambda f: gradbench.detector("kn"), "no detector named 'kn': did you mean knn"),
        (lambda f: gradbench.detector("knn", j=3), "no setting of detector knn named 'j'"),
        (lambda f: gradbench.detector("msp").predict(noise(3)), r"msp is not fitted: call fit\("),
        (lambda f: gradbench.detector("lid").fit(f, noise(30)), "give abnormal=IMAGES"),
        (lambda f: gradbench.detector("rmds").fit(f, noise(30)), "rmds reads labels: give labels="),
        (lambda f: gradbench.detector("gradient_synthetic").fit(f, noise(30)), "take gradient"),
        (lambda f: gradbench.detector("msp").fit(network().train(), noise(3)), "training mode"),
        (lambda f: gradbench.detector("msp").fit("f", noise(3)), "model is a str"),
        (
            lambda f: gradbench.detector("msp").fit(Answers(tuple).eval(), noise(3)[:, :, 1:]),
            r"does not take these images, float32 of shape \(1, 7, 8\)",
        ),
        (lambda f: gradbench.detector("msp").fit(f, noise(3) * 2), r"give them in \[0, 1\]"),
        (lambda f: gradbench.detector("msp").fit(f, []), "clean: there is no image"),
        (
            lambda f: gradbench.detector("msp").fit(f, noise(3)).predict(np.ones((2, 1, 9, 9))),
            r"images are of shape \(1, 9, 9\): the model takes \(1, 8, 8\)",
        ),
        (
            lambda f: gradbench.detector("rmds").fit(f, noise(3), labels=[1, 2]),
            "clean: 2 labels for 3 images",
        ),
    ],
)
def test_refusals(f, use, text):
    with pytest.raises(GradbenchError, match=text):
        use(f)
