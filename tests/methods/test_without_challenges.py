"""Detectors that see no challenge: known answers, and what their classes promise."""

import math

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from gradbench.errors import GradbenchError
from gradbench.methods import banks
from gradbench.methods.banks import kth_distance
from gradbench.methods.base import Samples
from gradbench.methods.energy import Energy, energy_score
from gradbench.methods.gradient_uncertainty import GradientUncertainty
from gradbench.methods.gradnorm import GradNorm
from gradbench.methods.knn import KNN
from gradbench.methods.max_logit import MaxLogit
from gradbench.methods.react import ReAct
from gradbench.methods.rmds import RMDS
from gradbench.methods.tuning import rank_auroc
from gradbench.methods.vim import ViM, principal_dimension

NOTHING = Samples.normal({})


def tensor(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32)


def drawn(*shape, seed=0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape)).float()


# logits


def test_max_logit():
    assert MaxLogit().score({"logits": tensor([1, 5, 2], [-3, -1, -2])}).tolist() == [-5, 1]


def test_energy_is_minus_the_log_of_the_sum():
    logits = tensor([math.log(2), math.log(3), math.log(5)])
    assert energy_score(logits).item() == pytest.approx(-math.log(10))
    assert energy_score(logits, 2.0).item() == pytest.approx(
        -2 * math.log(math.sqrt(2) + math.sqrt(3) + math.sqrt(5))
    )


@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_energy_refuses_a_temperature(value):
    with pytest.raises(GradbenchError, match="temperature="):
        Energy(value)


def test_gradnorm_is_zero_where_all_classes_are_alike_and_falls_from_there():
    outputs = {"logits": tensor([1, 1], [3, 1], [9, 1]), "features": tensor([1, -2]).expand(3, 2)}
    scores = GradNorm().score(outputs)
    assert scores[0] == 0
    p = 1 / (1 + math.exp(-2))
    assert scores[1].item() == pytest.approx(-2 * (p - 0.5) * 3)
    assert scores[2] < scores[1]


def test_gradient_uncertainty_is_the_sum():
    detector = GradientUncertainty()
    assert detector.score({detector.source: tensor([1, 2, 4], [0, 0, 0.5])}).tolist() == [7, 0.5]


# neighbours


@pytest.mark.parametrize("k", [1, 7, 40])
@pytest.mark.parametrize("block", [1, 100, 10**6])
def test_kth_distance_is_scikit_learns(k, block, monkeypatch):
    monkeypatch.setattr(banks, "BLOCK", block)
    bank, queries = drawn(40, 5), drawn(13, 5, seed=1)
    expected = NearestNeighbors(n_neighbors=k).fit(bank.numpy()).kneighbors(queries.numpy())[0]
    np.testing.assert_allclose(kth_distance(queries, bank, k), expected[:, -1], rtol=1e-5)


def test_small_distances_between_long_vectors_keep_their_digits():
    bank = torch.full((1, 100), 10.0)
    query = bank.clone()
    query[0, 0] += 2**-10
    assert kth_distance(query, bank, 1).item() == 2**-10
    assert kth_distance(bank, bank, 1).item() == 0


def test_knn_looks_at_directions_alone():
    bank = {"features": torch.cat([tensor([1, 0]).expand(50, 2), tensor([0, 5]).expand(50, 2)])}
    detector = KNN().fit(bank, NOTHING, NOTHING)
    scores = detector.score({"features": tensor([7, 0], [0, 0.1], [-1, 0], [1, 1])})
    turn = math.sqrt(2 - math.sqrt(2))
    np.testing.assert_allclose(scores, [0, 0, math.sqrt(2), turn], atol=1e-6)


@pytest.mark.parametrize("detector", [KNN, ViM, RMDS])
def test_the_hold_out_as_bank(detector):
    """The other bank gives the fit that the same images would as training images."""
    images = {
        "features": drawn(90, 6),
        "logits": drawn(90, 3, seed=1),
        "labels": torch.arange(90) % 3,
        "head/weight": drawn(3, 6, seed=2),
        "head/bias": drawn(3, seed=3),
    }
    head = {n: t for n, t in images.items() if n.startswith("head")}
    rest = Samples.normal({n: t for n, t in images.items() if n not in head})
    query = {"features": drawn(20, 6, seed=4), "logits": drawn(20, 3, seed=5)}
    on_train, on_hold_out = detector(), detector(bank="hold_out")
    assert on_train.hold_out_reads == ()
    assert on_train.clean_seen == "f's training images"
    assert {*on_hold_out.bank_reads} <= {*head}
    assert on_hold_out.clean_seen == "hold-out"
    first = on_train.fit(images, NOTHING, NOTHING).score(query)
    assert torch.equal(on_hold_out.fit(head, rest, rest).score(query), first)
    with pytest.raises(GradbenchError, match="no bank named 'hold-out': did you mean hold_out"):
        detector(bank="hold-out")


def test_more_neighbours_than_images_are_refused():
    with pytest.raises(GradbenchError, match="knn k=50: choose a whole number from 1 to 49"):
        KNN().fit({"features": drawn(49, 3)}, NOTHING, NOTHING)
    with pytest.raises(GradbenchError, match="knn k=0"):
        KNN(k=0)


# ViM, ReAct, RMDS


def test_principal_dimension():
    widths = (64, 256, 512, 513, 768, 2047, 2048)
    assert [principal_dimension(w) for w in widths] == [32, 128, 256, 512, 512, 512, 1000]


def test_vim_measures_what_leaves_the_principal_space():
    """Training features vary by 10 along two axes and by 0.1 along the others."""
    scale = tensor([10, 10, 0.1, 0.1])
    features = drawn(500, 4) * scale
    weight, bias = torch.eye(2, 4), torch.zeros(2)
    bank = {
        "features": features,
        "logits": features @ weight.T,
        "head/weight": weight,
        "head/bias": bias,
    }
    detector = ViM(dimension=2).fit(bank, NOTHING, NOTHING)
    residual = features[:, 2:].norm(dim=1).mean()
    alpha = (bank["logits"].amax(1).mean() / residual).item()
    assert detector.alpha.item() == pytest.approx(alpha, rel=1e-2)
    queries = tensor([3, 0, 0, 0], [3, 0, 0.3, 0.4])
    inside, outside = detector.score({"features": queries, "logits": queries @ weight.T})
    assert inside.item() == pytest.approx(-math.log(math.exp(3) + 1), abs=0.5)
    assert (outside - inside).item() == pytest.approx(0.5 * alpha, rel=2e-2)


def test_the_origin_of_vim_is_where_the_logits_vanish():
    weight, bias = drawn(3, 8), drawn(3, seed=1)
    bank = {"features": drawn(50, 8, seed=2), "logits": drawn(50, 3, seed=3)}
    bank |= {"head/weight": weight, "head/bias": bias}
    origin = ViM().fit(bank, NOTHING, NOTHING).origin.float()
    torch.testing.assert_close(weight @ origin + bias, torch.zeros(3), atol=1e-5, rtol=0)


def test_vim_refuses_a_dimension():
    with pytest.raises(GradbenchError, match="vim dimension=0"):
        ViM(dimension=0)
    bank = {"features": drawn(50, 8), "logits": drawn(50, 3)}
    bank |= {"head/weight": drawn(3, 8), "head/bias": drawn(3)}
    with pytest.raises(GradbenchError, match="choose 1 to 7 for features of width 8"):
        ViM(dimension=8).fit(bank, NOTHING, NOTHING)


def test_react_clips_at_the_percentile_of_all_activations():
    bank = {
        "features": torch.arange(101.0).expand(2, 101).reshape(101, 2),
        "head/weight": tensor([1, 1], [1, -1]),
        "head/bias": tensor(0, 1),
    }
    detector = ReAct(percentile=90).fit(bank, NOTHING, NOTHING)
    assert detector.ceiling.item() == 90
    below, above = detector.score({"features": tensor([1, 2], [200, 95])})
    assert below.item() == pytest.approx(-math.log(math.exp(3) + 1))
    assert above.item() == pytest.approx(-180)
    for value in (0, 101, float("nan")):
        with pytest.raises(GradbenchError, match="react percentile="):
            ReAct(percentile=value)


def test_rmds_by_hand():
    """Classes at -2 and 2 with variance 1, together at 0 with variance 5."""
    bank = {"features": tensor([-3], [-1], [1], [3]), "labels": torch.tensor([0, 0, 1, 1])}
    detector = RMDS().fit(bank, NOTHING, NOTHING)
    scores = detector.score({"features": tensor([2], [0], [7])})
    np.testing.assert_allclose(scores, [0 - 4 / 5, 4 - 0, 25 - 49 / 5], rtol=1e-6)


# a problem with a known answer: classes at the corners, abnormal images off the plane or between


def corners(count: int, seed: int) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    features = np.full((count, 8), 0.3)
    features[np.arange(count), labels] = 4
    return _outputs(features + 0.3 * rng.normal(size=(count, 8)), labels)


def between(count: int, seed: int) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(seed)
    features = np.full((count, 8), 1.0)
    return _outputs(features + 0.3 * rng.normal(size=(count, 8)), np.zeros(count, int))


def _outputs(features, labels) -> dict[str, torch.Tensor]:
    features = torch.from_numpy(features).float()
    head = {"head/weight": torch.eye(3, 8), "head/bias": torch.zeros(3)}
    logits = features @ head["head/weight"].T
    return {"features": features, "logits": logits, "labels": torch.from_numpy(labels)} | head


@pytest.mark.parametrize("make", [Energy, GradNorm, KNN, ViM, RMDS, ReAct])
def test_auroc_where_every_detector_must_succeed(make):
    detector = make().fit(corners(600, 0), NOTHING, NOTHING)
    scores = torch.cat([detector.score(corners(300, 1)), detector.score(between(300, 2))])
    assert rank_auroc(scores.numpy(), np.arange(600) >= 300) > 0.99
