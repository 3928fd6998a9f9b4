"""One-class fits on the gradient profile, and their fusion with the logits."""

import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf
from sklearn.ensemble import IsolationForest
from sklearn.mixture import GaussianMixture

from gradbench.errors import GradbenchError
from gradbench.methods import fused
from gradbench.methods.activation_oneclass import ActivationOneClass
from gradbench.methods.base import Samples
from gradbench.methods.energy import energy_score
from gradbench.methods.fused import Fused
from gradbench.methods.gradient_norms import class_means, class_profile, log_norms
from gradbench.methods.gradient_oneclass import MODELS, GradientOneClass
from gradbench.methods.knn import KNN
from gradbench.methods.oneclass_models import (
    Forest,
    Mahalanobis,
    Mixture,
    Neighbours,
    expected_depth,
)
from gradbench.methods.tuning import rank_auroc

NAME = "squared_norms/ones/bce"


def profiles(count: int, seed: int = 0, features: int = 6) -> torch.Tensor:
    """Return correlated vectors of mean zero."""
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(99).normal(size=(features, features))
    return torch.from_numpy(rng.normal(size=(count, features)) @ mix)


def outputs(count: int, seed: int = 0, apart: float = 0.0) -> dict[str, torch.Tensor]:
    """Return norms of three classes whose log means differ; `apart` breaks their correlation.

    The first two tensors' logs are nearly equal for normal images, and differ by `apart` and more
    for abnormal ones; by themselves they tell nothing.
    """
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    logs = rng.normal(size=(count, 5))
    logs[:, 1] = logs[:, 0] + 0.1 * rng.normal(size=count)
    logs[:, 1] += apart * rng.choice([-1, 1], count)
    logs += 4 * labels[:, None] - 8
    logits = rng.normal(size=(count, 3))
    logits[np.arange(count), labels] += 8
    features = rng.normal(size=(count, 4)) + 5 * np.eye(3, 4)[labels]
    found = {NAME: np.exp(logs), "logits": logits, "features": features}
    return {n: torch.from_numpy(v).float() for n, v in found.items()}


def hold_out(count: int = 600, seed: int = 0) -> Samples:
    return Samples.normal(outputs(count, seed))


def auroc(detector, abnormal) -> float:
    normal = detector.score(outputs(600, 7))
    scores = torch.cat([normal, detector.score(abnormal)]).numpy()
    return rank_auroc(scores, np.arange(len(scores)) >= 600)


# the profile


def test_the_profile_is_the_log_norm_less_that_of_the_predicted_class():
    norms, logits = torch.rand(30, 4) + 0.1, torch.randn(30, 3)
    values = log_norms(norms)
    found = class_profile(values, logits, class_means(values, logits))
    logs, predicted = np.log(norms.double().numpy() + 1e-12), logits.argmax(1).numpy()
    for c in range(3):
        mine = predicted == c
        np.testing.assert_allclose(found[mine], logs[mine] - logs[mine].mean(0), atol=1e-12)


def test_a_class_that_is_never_predicted_has_the_mean_of_all():
    norms = torch.rand(20, 4) + 0.1
    logits = torch.zeros(20, 3)
    logits[:, 1] = 1
    means = class_means(norms, logits)
    other = torch.zeros(1, 3)
    other[:, 2] = 1
    first, second = (class_profile(norms[:1], z, means) for z in (other, logits[:1]))
    torch.testing.assert_close(first, second)


def test_norms_of_zero_are_floored():
    assert torch.isfinite(log_norms(torch.zeros(5, 2))).all()


# the models


def test_mahalanobis_is_scikit_learns():
    bank, queries = profiles(300), profiles(40, seed=1) * 2
    expected = LedoitWolf(assume_centered=True).fit(bank.numpy()).mahalanobis(queries.numpy())
    np.testing.assert_allclose(Mahalanobis().fit(bank).distance(queries) ** 2, expected, rtol=1e-8)


def test_the_mixture_is_scikit_learns():
    bank, queries = profiles(300), profiles(40, seed=1) * 2
    model = Mixture(components=3, ridge=0.01).fit(bank, seed=4)
    std = bank.square().mean(0).sqrt().numpy()
    other = GaussianMixture(3, reg_covar=0.01, random_state=4).fit(bank.numpy() / std)
    expected = -other.score_samples(queries.numpy() / std)
    np.testing.assert_allclose(model.distance(queries), expected, rtol=1e-8)


def test_the_forest_is_scikit_learns():
    bank, queries = profiles(400), profiles(50, seed=1) * 2
    for trees, samples in ((20, 256), (3, 1000), (5, 2)):
        model = Forest(trees, samples).fit(bank, seed=4)
        other = IsolationForest(
            n_estimators=trees, max_samples=min(samples, 400), random_state=4
        ).fit(bank.numpy())
        expected = -other.score_samples(queries.numpy())
        np.testing.assert_allclose(model.distance(queries), expected, rtol=1e-12)


def test_expected_depth():
    found = expected_depth(np.array([1, 2, 3, 256]))
    np.testing.assert_allclose(found, [0, 1, 2 * (np.log(2) + 0.5772156649) - 4 / 3, 10.244770920])


def test_neighbours_weigh_every_tensor_alike():
    bank, queries = profiles(200), profiles(30, seed=1)
    stretched = torch.tensor([1, 10, 100, 1e-3, 1, 7], dtype=torch.float64)
    first = Neighbours().fit(bank).distance(queries)
    other = Neighbours().fit(bank * stretched).distance(queries * stretched)
    torch.testing.assert_close(first, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model", MODELS)
def test_a_tensor_without_gradient_is_no_obstacle(model):
    quiet = outputs(200)
    quiet[NAME][:, 3] = 0
    detector = GradientOneClass(model).fit({}, Samples.normal(quiet), Samples.normal(quiet))
    loud = {n: v.clone() for n, v in quiet.items()}
    assert torch.isfinite(detector.score(loud)).all()


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: GradientOneClass("svm"), "no model named 'svm'"),
        (lambda: GradientOneClass("knn", settings={"k": 0}), "k=0"),
        (lambda: GradientOneClass("gmm", settings={"components": 0}), "components=0"),
        (lambda: GradientOneClass("forest", settings={"trees": 0}), "trees=0"),
        (lambda: GradientOneClass("knn").fit({}, hold_out(9), hold_out(9)), "from 1 to 9"),
    ],
)
def test_refusals(make, text):
    with pytest.raises(GradbenchError, match=text):
        make()


# the detector


@pytest.mark.parametrize(
    ("model", "floor"), [("mahalanobis", 0.99), ("knn", 0.95), ("gmm", 0.99), ("forest", 0.85)]
)
def test_a_broken_correlation_is_seen_without_any_abnormal_image(model, floor):
    """Each tensor's norms by themselves look ordinary; only their relation does not."""
    detector = GradientOneClass(model).fit({}, hold_out(), hold_out())
    assert auroc(detector, outputs(600, 8, apart=3.0)) > floor
    assert abs(auroc(detector, outputs(600, 8)) - 0.5) < 0.05


def test_the_class_matters():
    """Norms ordinary for class 2 are far from those of class 0, which is what is predicted."""
    detector = GradientOneClass().fit({}, hold_out(), hold_out())
    found = outputs(600, 8)
    found["logits"] = found["logits"].roll(1, 1)
    assert auroc(detector, found) > 0.99


# the control on activations


def activations(count: int, seed: int = 0, apart: float = 0.0) -> dict[str, torch.Tensor]:
    """Return the values of `outputs` as means of two feature layers, with the logits."""
    found = outputs(count, seed, apart)
    first, second = found[NAME].log().split([2, 3], dim=1)
    layers = {"layer_means/stage1": first, "layer_means/stage2": second}
    return {"logits": found["logits"], **layers}


def test_on_the_same_values_the_control_is_the_detector_itself():
    """Up to the floor of the norms: both fit the same model to the same profiles."""
    aside = Samples.normal(activations(600))
    control = ActivationOneClass().fit({}, aside, aside)
    detector = GradientOneClass().fit({}, hold_out(), hold_out())
    found = control.score(activations(80, 8, apart=1.0))
    torch.testing.assert_close(found, detector.score(outputs(80, 8, apart=1.0)), rtol=1e-4, atol=0)


def test_the_control_keeps_the_order_of_eleven_layers():
    """Names of more than ten layers sort otherwise as words than in their order."""
    rng = np.random.default_rng(3)
    layers = {f"layer_means/stage{i}": torch.from_numpy(rng.normal(size=(90, i + 1)))
              for i in range(11)}  # fmt: skip
    clean = {"logits": torch.from_numpy(rng.normal(size=(90, 3))), **layers}
    aside = Samples.normal(clean)
    control = ActivationOneClass().fit({}, aside, aside)
    state = dict(sorted(control.state().items()))
    other = ActivationOneClass().load(state)
    assert other.reads == control.reads
    assert torch.equal(other.score(clean), control.score(clean))


def test_the_fused_control_joins_energy_with_activations():
    aside, query = Samples.normal(activations(600)), activations(50, 8, apart=1.0)
    detector = Fused(["energy"], ["activation_oneclass"]).fit({}, aside, aside)
    distance = ActivationOneClass().fit({}, aside, aside)

    def z(score):
        clean = score(aside.outputs)
        return (score(query) - clean.mean()) / clean.std(correction=0)

    expected = z(lambda o: energy_score(o["logits"]))
    expected = expected + z(lambda o: distance.score(o).log()).clamp(min=0)
    torch.testing.assert_close(detector.score(query), expected)


# fusion


@pytest.mark.parametrize("knn", [False, True])
def test_the_fused_score_is_that_of_its_formula(knn):
    bank, aside, query = outputs(400, 1), hold_out(), outputs(50, 8, apart=1.0)
    detector = Fused(["energy", "knn"] if knn else ["energy"], ["gradient_oneclass"]).fit(
        bank, aside, aside
    )
    distance = GradientOneClass().fit({}, aside, aside)
    neighbours = KNN().fit(bank, aside, aside)

    def z(score):
        clean = score(aside.outputs)
        return (score(query) - clean.mean()) / clean.std(correction=0)

    expected = z(lambda o: energy_score(o["logits"]))
    expected = expected + z(lambda o: distance.score(o).log()).clamp(min=0)
    expected = expected + (z(neighbours.score) if knn else 0)
    torch.testing.assert_close(detector.score(query), expected)


def test_parts_of_a_fusion_take_settings_and_may_be_detectors():
    bank, query = outputs(400, 1), outputs(50, 8, apart=1.0)
    named, built = (
        Fused(["energy", part]).fit(bank, hold_out(), hold_out())
        for part in ({"use": "knn", "k": 3}, KNN(k=3))
    )
    assert torch.equal(named.score(query), built.score(query))
    other = Fused(["energy", {"use": "knn", "k": 3}]).load(named.state())
    assert torch.equal(other.score(query), named.score(query))


def test_the_version_of_a_fusion_is_another_with_settings_or_version_of_a_part(monkeypatch):
    def version() -> int:
        return Fused(["energy"], ["knn"]).version

    before = version()
    assert version() == before != Fused(["knn"], ["energy"]).version
    monkeypatch.setattr(KNN, "version", KNN.version + 1)
    assert version() != before
    monkeypatch.undo()
    read = fused.load_member
    changed = {"knn": {"k": 49}}
    monkeypatch.setattr(fused, "load_member", lambda *of: read(*of) | changed.get(of[1], {}))
    assert version() != before


def test_a_mirrored_fusion_takes_the_mean_of_both_views():
    bank, held, query = outputs(400, 1), hold_out().outputs, outputs(50, 8, apart=1.0)

    def both(plain, seed):
        mirror = outputs(len(plain["logits"]), seed)
        return plain | {f"mirrored/{name}": mirror[name] for name in mirror}

    held, query = both(held, 21), both(query, 22)
    parts = ["energy", "knn"], ["gradient_oneclass"]
    detector = Fused(*parts, mirrored=True).fit(bank, Samples.normal(held), Samples.normal(held))
    assert set(detector.reads) == {*held, *query} - {"labels"}
    members = [KNN(), GradientOneClass()]
    for member in members:
        member.fit(bank, Samples.normal(held), Samples.normal(held))
    knn, profile = (member.score for member in members)

    def z(score):
        views = [
            (score(o) + score({n: o[f"mirrored/{n}"] for n in o if f"mirrored/{n}" in o})) / 2
            for o in (held, query)
        ]
        return (views[1] - views[0].mean()) / views[0].std(correction=0)

    expected = z(lambda o: energy_score(o["logits"])) + z(knn)
    expected = expected + z(lambda o: profile(o).log()).clamp(min=0)
    torch.testing.assert_close(detector.score(query), expected)
    assert (detector.pass_count.forward, detector.pass_count.backward) == (2, 2)


@pytest.mark.parametrize(
    ("parts", "message"),
    [([], "name at least one"), (["enrgy"], "energy"), (["odin"], "sees challenges or perturbs"),
     (["gradient"], "sees challenges"), (["papers"], "no single detector"),
     ([{"use": "energy", "_target_": "os.system"}], "no single detector"), ([3], "3"),
     ("energy", "write a list"), (3, "parts=3: write a list")],
)  # fmt: skip
def test_parts_that_cannot_be_fused_are_one_sentence(parts, message):
    with pytest.raises(GradbenchError, match=message):
        Fused(parts)


@pytest.mark.parametrize("source", ["logits", "maps"])
def test_a_source_without_norms_is_one_sentence(source):
    clean = outputs(50, 1) | {"maps": torch.ones(50, 2, 3)}
    with pytest.raises(GradbenchError, match=f"source={source}: an output with a number from 0"):
        GradientOneClass(source=source).fit({}, Samples.normal(clean), Samples.normal(clean))


def test_a_score_without_a_logarithm_is_not_rectified():
    with pytest.raises(GradbenchError, match="Energy has scores below 0"):
        Fused([], ["energy"]).fit({}, hold_out(), hold_out())


def test_the_fusion_finds_what_either_part_finds():
    """Logits that are unsure with an ordinary profile, and the other way round."""
    detector = Fused(["energy"], ["gradient_oneclass"]).fit({}, hold_out(), hold_out())
    unsure = outputs(600, 8)
    unsure["logits"] = unsure["logits"] / 4
    assert auroc(detector, unsure) > 0.99
    assert auroc(detector, outputs(600, 8, apart=3.0)) > 0.95
