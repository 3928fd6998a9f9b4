"""Mean gradients of groups of images, against the gradients of one image at a time."""

import pytest
import torch
from _gradient_settings import SETTINGS, case
from torch import nn

from gradbench.errors import GradbenchError
from gradbench.gradients import alignments, mean_gradients

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same'")


# whose gradient of a batch is another than the sum over its images, by definition
BY_BATCH = "embedding-by-frequency"


@pytest.mark.parametrize("name", [n for n in SETTINGS if n != BY_BATCH])
def test_mean_gradients_are_the_means_of_single_ones(name):
    model, images, _, gradients = case(name)
    groups = torch.arange(len(images)) % 2
    found = mean_gradients(model, images, groups, 3, chunk=2, **SETTINGS[name].options)
    names = [n for n, _ in model.named_parameters()]
    assert list(found) == names
    for column, parameter in enumerate(names):
        of_images = torch.stack([row[column].to_dense() for row in gradients])
        scale = max(float(g.to_dense().abs().max()) for row in gradients for g in row)
        for group in range(2):
            expected = of_images[groups == group].mean(0)
            torch.testing.assert_close(
                found[parameter][group], expected, rtol=1e-9, atol=1e-12 * scale
            )
        assert (found[parameter][2] == 0).all()


def test_products_with_mean_gradients_average_to_their_gram_matrix():
    """mean over images of class i of <g, m_j> = <m_i, m_j>."""
    model, images, _, _ = case("vision")
    groups = torch.arange(len(images)) % 2
    means = mean_gradients(model, images, groups)
    products = alignments(model, images, means).products
    rows = torch.stack([products[groups == group].mean(0) for group in range(2)])
    grams = [v.flatten(1) @ v.flatten(1).T for v in means.values()]
    torch.testing.assert_close(rows.transpose(0, 1), torch.stack(grams))


def test_the_network_is_left_as_it_was():
    model, images, _, _ = case("conv")
    before = {n: t.clone() for n, t in model.state_dict().items()}
    with torch.no_grad():
        found = mean_gradients(model, images, torch.zeros(len(images), dtype=torch.long))
    assert not any(v.requires_grad for v in found.values())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


@pytest.mark.parametrize(
    ("groups", "count", "told"),
    [
        (torch.zeros(3, dtype=torch.long), None, r"the groups are \(3,\) of int64"),
        (torch.zeros(4), None, "of float32: give a whole number"),
        (torch.tensor([0, 1, -1, 0]), None, "a whole number from 0"),
        (torch.tensor([0, 1, 5, 0]), 5, "group 5 of 5"),
    ],
)
def test_wrong_groups_are_refused(groups, count, told):
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval()
    with pytest.raises(GradbenchError, match=told):
        mean_gradients(model, torch.rand(4, 1, 2, 2), groups, count)


def test_training_mode_and_unknown_options_are_refused():
    model, labels = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2)), torch.zeros(4).long()
    with pytest.raises(GradbenchError, match="training mode"):
        mean_gradients(model, torch.rand(4, 4), labels)
    with pytest.raises(GradbenchError, match="no option named 'routes'"):
        mean_gradients(model.eval(), torch.rand(4, 4), labels, routes="direct")
