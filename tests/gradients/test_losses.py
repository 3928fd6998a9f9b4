"""Labels and losses: known values, losses of one's own, and what about them is refused."""

from functools import partial

import pytest
import torch
from _gradient_settings import case, squared_distance
from _gradient_truth import assert_exact, loop
from torch import Tensor

from gradbench.errors import GradbenchError
from gradbench.gradients import KHot, Ones, RandomKHot, Zeros, as_loss, explain, squared_norms


class Distance:
    """A callable object with a setting of its own."""

    def __init__(self, power: int):
        self.power = power

    def __call__(self, images: Tensor, outputs: Tensor) -> Tensor:
        return (outputs - images).abs().pow(self.power).flatten(1).mean(1)


def weighted(outputs: Tensor, weight: float = 2.0, *, shift: float = 1.0) -> Tensor:
    """One argument that it cannot do without, so it gets the outputs."""
    return weight * (outputs - shift).square().flatten(1).sum(1)


def named(target: Tensor, found: Tensor, *, scale: float = 0.5) -> Tensor:
    """The order counts, not the names."""
    return scale * squared_distance(target, found)


LOSSES = {
    "function": (squared_distance, squared_distance),
    "object": (Distance(3), Distance(3)),
    "other names": (named, lambda x, z: 0.5 * (z - x).square().flatten(1).sum(1)),
    "defaults": (weighted, lambda x, z: 2 * (z - 1).square().flatten(1).sum(1)),
    "partial": (
        partial(weighted, weight=3.0),
        lambda x, z: 3 * (z - 1).square().flatten(1).sum(1),
    ),
    "bound": (Distance(2).__call__, Distance(2)),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_of_ones_own(name):
    model, images, _, _ = case("autoencoder")
    given, meant = LOSSES[name]
    truth = loop(model, images, meant)
    for chunk in (2, 5):
        assert_exact(squared_norms(model, images, loss=given, chunk=chunk).values, truth)


def test_a_loss_sees_the_images_of_its_chunk():
    model, images, _, _ = case("autoencoder")
    seen = []

    def loss(images: Tensor, outputs: Tensor) -> Tensor:
        seen.append(images.clone())
        return squared_distance(images, outputs)

    squared_norms(model, images, loss=loss, chunk=2)
    assert torch.equal(seen[0], images[:2])
    assert torch.equal(seen[-1], images[-len(seen[-1]) :])


def test_a_loss_of_images_and_outputs_with_the_fallback():
    """The exact fallback hands the one image to the loss."""
    model, images, _, _ = case("autoencoder")
    found = squared_norms(model, images, loss=squared_distance, routes="one image at a time")
    assert_exact(found.values, case("autoencoder").truth)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda images, outputs: (outputs - images).square().sum(), "one value per image"),
        (lambda images, outputs: (outputs - images).square().sum(1), "one value per image"),
        (lambda images, outputs: images.flatten(1).sum(1), "does not depend on the outputs"),
        (
            lambda images, outputs: (outputs - images.mean(0)).square().flatten(1).sum(1)
            * outputs.mean(),
            "mixes the images",
        ),
        ("bce", "needs logits"),
    ],
)
def test_refused_losses(loss, message):
    model, images, _, _ = case("autoencoder")
    with pytest.raises(GradbenchError, match=message):
        squared_norms(model, images, loss=loss)
    with pytest.raises(GradbenchError, match="no label and no reduction"):
        explain(model, images, loss=squared_distance, reduction="sum")


@pytest.mark.parametrize(
    ("label", "vector"),
    [
        (Ones(), [1, 1, 1, 1]),
        (Zeros(), [0, 0, 0, 0]),
        (KHot((3, 0)), [1, 0, 0, 1]),
        (RandomKHot(4, seed=1), [1, 1, 1, 1]),
    ],
)
def test_label_vectors(label, vector):
    assert label.vector(4).tolist() == vector


def test_random_label_depends_on_the_seed_alone():
    draws = [RandomKHot(5, seed=s).vector(10) for s in range(20)]
    assert all(d.sum() == 5 for d in draws)
    assert len({tuple(d.tolist()) for d in draws}) > 10
    torch.manual_seed(3)
    assert torch.equal(RandomKHot(5, seed=0).vector(10), draws[0])


def test_gradients_of_losses_are_those_of_the_table():
    z = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    p = z.softmax(1)
    expected = {
        "bce": (z.sigmoid() - 1) / 4,
        "ce_uniform": p - 1 / 4,
        "ce_sum_one_hot": 4 * p - 1,
        "mse": 2 * (z - 1) / 4,
    }
    for name, gradient in expected.items():
        (found,) = torch.autograd.grad(as_loss(name)(z).sum(), z, retain_graph=True)
        torch.testing.assert_close(found, gradient)


def test_one_hot_is_not_confounding():
    with pytest.raises(GradbenchError, match="not confounding"):
        KHot((2,))
