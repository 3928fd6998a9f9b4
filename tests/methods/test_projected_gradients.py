"""GradOrth and GROOD against their gradients by autograd, one image at a time; known answers."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from gradbench.errors import GradbenchError
from gradbench.methods.base import Samples
from gradbench.methods.gradorth import GradOrth
from gradbench.methods.grood import GROOD

NOTHING = Samples.normal({})


@pytest.fixture(scope="module")
def given():
    """Return weight, bias, bank and outputs of 12 features, one of them never used, 5 classes."""
    draw = torch.Generator().manual_seed(0)
    weight = torch.randn(5, 12, generator=draw).double()
    bias = torch.randn(5, generator=draw).double()

    def outputs(count):
        features = torch.rand(count, 12, generator=draw).double() * torch.arange(12) / 4
        return {"features": features, "logits": features @ weight.T + bias}

    bank = outputs(90)
    labels = bank["logits"].argmax(1)
    labels[::4] = torch.randint(0, 5, (23,), generator=draw)
    return weight, bias, bank | {"labels": labels}, outputs(8)


@pytest.mark.parametrize("share", [0.5, 0.97, 1])
def test_gradorth_is_the_norm_of_the_projected_gradient_by_autograd(given, share):
    weight, bias, bank, outputs = given
    _, sizes, directions = np.linalg.svd(bank["features"].numpy(), full_matrices=False)
    shares = (sizes**2).cumsum() / (sizes**2).sum()
    kept = min(int((shares < share - 1e-13).sum()) + 1, 12)
    space = torch.from_numpy(directions[:kept].T.copy())
    expected = []
    for features in outputs["features"]:
        variable = weight.clone().requires_grad_()
        target = torch.full((5,), 1 / 5, dtype=torch.float64)
        loss = F.cross_entropy(variable @ features + bias, target)
        (gradient,) = torch.autograd.grad(loss, variable)
        expected.append(-(gradient @ space).norm().item())
    found = GradOrth(share).fit(bank, NOTHING, NOTHING).score(outputs)
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9)


def test_gradorth_sees_what_lies_in_the_plane_of_training_images():
    bank = {"features": torch.tensor([[3.0, 0, 0], [0, 2, 0]])}
    outputs = {"features": torch.tensor([[3.0, 4, 12], [0, 0, 9]]),
               "logits": torch.tensor([[99.0, 0], [99, 0]])}  # fmt: skip
    found = GradOrth(share=1).fit(bank, NOTHING, NOTHING).score(outputs)
    assert found.tolist() == pytest.approx([-5 * 0.5**0.5, 0])


@pytest.mark.parametrize("prototype", ["mixed", "mean"])
def test_grood_is_the_distance_of_gradients_by_autograd(given, prototype):
    *_, bank, outputs = given
    features, labels, logits = bank["features"], bank["labels"], bank["logits"]
    means = torch.stack([features[labels == c].mean(0) for c in range(5)])
    if prototype == "mixed":
        made = [(h + means[z.argsort()[-2]]) / 2 for h, z in zip(features, logits)]
        other = torch.stack(made).mean(0)
    else:
        other = means.mean(0)

    def gradient(h, z):
        variable = other.clone().requires_grad_()
        scores = -torch.stack([(h - one).norm() for one in (*means, variable)])
        loss = F.cross_entropy(scores, z.argmax())
        return torch.autograd.grad(loss, variable)[0]

    known = [gradient(h, z) for h, z, y in zip(features, logits, labels) if z.argmax() == y]
    assert len(known) < len(features)
    expected = []
    for h, z in zip(outputs["features"], outputs["logits"]):
        own = gradient(h, z)
        expected.append(min((own - one).norm().item() for one in known))
    found = GROOD(prototype).fit(bank, NOTHING, NOTHING).score(outputs)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)


def test_grood_on_a_line():
    """Classes at 0 and 4, the unknown in the middle; at 2 + x the gradient is that of x > 0."""
    bank = {"features": torch.tensor([[0.0], [4.0]]), "labels": torch.tensor([0, 1]),
            "logits": torch.eye(2)}  # fmt: skip
    detector = GROOD("mean").fit(bank, NOTHING, NOTHING)
    found = detector.score({"features": torch.tensor([[0.0], [4.0], [2.0], [3.0]])})

    def share(*distances):
        return np.exp(-distances[-1]) / np.exp(-np.array(distances)).sum()

    known = share(0, 4, 2)
    expected = [0, 0, known, abs(share(3, 1, 1) - known)]
    assert found.tolist() == pytest.approx(expected, abs=1e-6)


def test_grood_of_a_class_without_images_and_of_a_single_one(given):
    *_, bank, outputs = given
    few = {name: values[bank["labels"] < 4] for name, values in bank.items()}
    assert len(GROOD().fit(few, NOTHING, NOTHING).prototypes) == 5
    one = {name: values[bank["labels"] == 2] for name, values in bank.items()}
    detector = GROOD().fit(one, NOTHING, NOTHING)
    assert torch.equal(detector.prototypes[0], detector.prototypes[1])
    assert detector.score(outputs).isfinite().all()


def test_grood_without_a_right_answer_is_refused(given):
    *_, bank, _ = given
    wrong = bank | {"labels": (bank["logits"].argmax(1) + 1) % 5}
    with pytest.raises(GradbenchError, match="none of its training images"):
        GROOD().fit(wrong, NOTHING, NOTHING)


@pytest.mark.parametrize(
    ("kind", "settings", "told"),
    [
        (GradOrth, {"share": 0}, "gradorth share=0: above 0, up to 1"),
        (GROOD, {"prototype": "noise"}, "valid choices are mean, mixed"),
    ],
)
def test_settings_out_of_range_are_refused(kind, settings, told):
    with pytest.raises(GradbenchError, match=told):
        kind(**settings)


def test_grood_keeps_distances_that_float32_does_not_hold():
    draw = torch.Generator().manual_seed(0)
    centres, labels = 60 * torch.randn(3, 16, generator=draw), torch.arange(300) % 3
    features = centres[labels] + torch.randn(300, 16, generator=draw)
    logits = F.one_hot(labels, 3).float()
    bank = {"features": features, "labels": labels, "logits": logits}
    detector = GROOD().fit(bank, NOTHING, NOTHING)
    query = torch.cat([centres + torch.randn(3, 16, generator=draw), centres.mean(0)[None]])
    known, own = (detector._gradients(of.double()) for of in (features, query))
    assert known.abs().max() < 1e-45
    expected = torch.stack([(known - one).norm(dim=1).min() for one in own])
    scores = detector.score({"features": query})
    assert (scores > 0).all()
    # neighbours are found among lengths of one float32 range
    torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-6 * float(known.abs().max()))
