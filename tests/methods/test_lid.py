"""Local intrinsic dimensionality on data of known dimension, and against nearest neighbours."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from gradbench.errors import GradbenchError
from gradbench.methods.base import Samples
from gradbench.methods.lid import CEILING, Lid, lid, sorted_distances


@pytest.mark.parametrize("dimension", [1, 2, 5, 8])
def test_uniform_data_have_their_dimension(dimension):
    """At the middle of cubes of some dimensions, turned into 12; the estimator's mean is exact."""
    draw, k, cubes = np.random.default_rng(dimension), 20, 200
    turn = np.linalg.qr(draw.normal(size=(12, 12)))[0][:dimension]
    estimates = []
    for _ in range(cubes):
        points = torch.from_numpy(draw.uniform(-1, 1, (2000, dimension)) @ turn + 5)
        middle = torch.full((1, 12), 5.0, dtype=torch.float64)
        estimates.append(lid(sorted_distances(middle, points), k).item())
    mean = np.mean(estimates) * (k - 2) / k  # log(r_k / r_i) are exponential, k - 1 of them
    assert mean == pytest.approx(dimension, abs=4 * dimension / np.sqrt((k - 3) * cubes))


def test_it_is_the_formula_on_scikit_learns_neighbours():
    draw = np.random.default_rng(0)
    reference, queries = draw.normal(size=(100, 7)), draw.normal(size=(30, 7))
    for k in (10, 50, 90):
        near, _ = NearestNeighbors(n_neighbors=k + 1).fit(reference).kneighbors(queries)
        near = near[:, 1:]  # without the smallest
        expected = [-k / np.sum(np.log(row / row[-1])) for row in near]
        found = lid(
            sorted_distances(torch.from_numpy(queries), torch.from_numpy(reference))[:, 1:], k
        )
        np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_scale_and_shift_change_nothing():
    draw = torch.Generator().manual_seed(0)
    reference, queries = (torch.randn(n, 4, generator=draw).double() for n in (50, 20))
    plain = lid(sorted_distances(queries, reference), 20)
    moved = lid(sorted_distances(1e-3 * queries + 7, 1e-3 * reference + 7), 20)
    torch.testing.assert_close(moved, plain)


def test_duplicates_and_equal_distances_stay_finite():
    distances = torch.tensor(
        [
            [0.0, 0, 0, 0],  # equal to all neighbours
            [0, 0, 1, 2],  # equal to some
            [3, 3, 3, 3],  # all at one distance
            [1, 2, 3, 4],
        ],
        dtype=torch.float64,
    )
    found = lid(distances, 4)
    assert torch.isfinite(found).all()
    assert found[0] == 0
    assert 0 < found[1] < 0.1
    assert found[2] == CEILING
    assert found[3].item() == pytest.approx(-4 / np.log([1 / 4, 2 / 4, 3 / 4]).sum())


def test_distances_of_near_duplicates_keep_their_digits():
    point = torch.full((1, 300), 1e3)
    reference = point + torch.tensor([[0.0], [1e-3], [1.0]])
    found = sorted_distances(point, reference)[0]
    exact = (reference.double() - point.double())[:, 0].abs() * np.sqrt(300)
    torch.testing.assert_close(found, exact)


# the detector


def outputs(count: int, dimensions: tuple[int, int], seed: int) -> dict[str, torch.Tensor]:
    """Return two layers in 12 features, uniform in so many dimensions."""
    draw = np.random.default_rng(seed)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(12, 12)))[0]
    found = {}
    for layer, dimension in zip(("b", "a"), dimensions):
        values = draw.uniform(-1, 1, (count, dimension)) @ turn[:dimension]
        found[f"layer_means/{layer}"] = torch.from_numpy(values).float()
    return found


def samples(seed: int, count: int = 150) -> Samples:
    return Samples.join(outputs(count, (2, 2), seed), outputs(count, (2, 9), seed + 1))


BANK = {f"hold_out/{n}": v for n, v in outputs(400, (2, 2), 99).items()}


def test_images_of_higher_dimension_are_found():
    detector = Lid().fit(BANK, samples(0), samples(10))
    normal, abnormal = (detector.score(outputs(200, (2, d), 5)) for d in (2, 9))
    assert (normal < 0).double().mean() > 0.9
    assert (abnormal > 0).double().mean() > 0.9


def test_the_minibatch_is_drawn_from_the_hold_out():
    detector = Lid().fit(BANK, samples(0), samples(10))
    for name, reference in detector.reference.items():
        assert reference.shape == (100, 12)
        clean = {tuple(row) for row in BANK[f"hold_out/{name}"].tolist()}
        assert {tuple(row) for row in reference.tolist()} <= clean
    other = Lid().fit(BANK, samples(0), samples(10), seed=1)
    assert not torch.equal(other.reference["layer_means/b"], detector.reference["layer_means/b"])


def test_the_order_of_the_layers_outlives_the_state():
    detector = Lid().fit(BANK, samples(0), samples(10))
    state = dict(sorted(detector.state().items()))
    assert list(Lid().load(state).reference) == ["layer_means/b", "layer_means/a"]


def test_k_is_the_best_on_choose(monkeypatch):
    from gradbench.methods import lid as module

    told = iter([0.6, 0.9, 0.9, 0.7])
    monkeypatch.setattr(module, "rank_auroc", lambda scores, abnormal: next(told))
    assert Lid(neighbours=(10, 20, 40, 80)).fit(BANK, samples(0), samples(10)).k == 20


def test_a_small_hold_out_has_fewer_neighbours():
    few = {n: v[:40] for n, v in BANK.items()}
    detector = Lid(neighbours=(20, 90)).fit(few, samples(0), samples(10))
    assert detector.k in (20, 39)
    assert torch.isfinite(detector.score(outputs(20, (2, 9), 5))).all()


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"neighbours": []}, "neighbours="),
        ({"neighbours": [1]}, "at least 2"),
        ({"neighbours": [2.5]}, "whole numbers"),
        ({"minibatch": 3}, "minibatch=3: a whole number, at least 20"),
    ],
)
def test_settings_out_of_range_are_refused(settings, text):
    with pytest.raises(GradbenchError, match=text):
        Lid(**settings)
