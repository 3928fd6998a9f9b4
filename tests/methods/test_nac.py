"""NAC-UE against its formula, one image and neuron at a time, and known answers."""

import numpy as np
import pytest
import torch

from gradbench.errors import GradbenchError
from gradbench.methods.base import PassCount, Samples
from gradbench.methods.nac import NAC, NACTuned, thresholds
from gradbench.methods.tuning import tnr_at_95_tpr

NOTHING = Samples.normal({})
WIDTHS = (3, 4, 5)


def states(count, seed=0, scale=1.0):
    draw = torch.Generator().manual_seed(seed)
    return {
        f"neuron_states/stage{i}": scale * torch.randn(count, width, generator=draw)
        for i, width in enumerate(WIDTHS)
    }


def edges(bins):
    """Return the authors' thresholds: log-spaced up to 0.5, mirrored above, and one at 1.2."""
    lower = np.emath.logn(1000, np.linspace(1, np.sqrt(1000), bins // 2))
    upper = (1 - lower)[::-1]
    upper[-1] += 0.01
    return [*lower[:-1], *upper, 1.2]


def covered(bank, state, alpha, bins, full):
    """Return the coverage of one neuron's state, by its values for the training images."""

    def squash(value):
        return 1 / (1 + np.exp(-alpha * float(value)))

    limits = edges(bins)
    (place,) = (i for i in range(bins - 1) if limits[i] <= squash(state) < limits[i + 1])
    count = sum(limits[place] <= squash(one) < limits[place + 1] for one in bank)
    return min(count / full, 1)


@pytest.mark.parametrize("bins", [4, 50, 500])
def test_thresholds_are_those_of_the_authors(bins):
    found = thresholds(bins)
    assert len(found) == bins
    np.testing.assert_allclose(found.numpy(), edges(bins), rtol=0, atol=1e-15)


def test_nac_is_its_formula():
    bank, outputs = states(60), states(9, seed=1, scale=2)
    settings = {"alphas": [0.5, 2, 20], "bins": [50, 8, 20], "full": [2, 5, 7]}
    expected = []
    for row in range(9):
        layers = []
        for name, *setting in zip(bank, *settings.values()):
            columns = zip(bank[name].T, outputs[name][row])
            layers.append(np.mean([covered(column, state, *setting) for column, state in columns]))
        expected.append(-np.mean(layers))
    assert len(set(expected)) > 5
    found = NAC(**settings).fit(bank, NOTHING, NOTHING).score(outputs)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


def test_nac_of_two_images_in_one_bin():
    """Of four bins' thresholds 0.5 is the second: states below lie in one bin, above in another."""
    bank = {"neuron_states/bn": torch.tensor([[-1.0], [-2.0], [3.0]])}
    detector = NAC(alphas=[1], bins=[4], full=[4]).fit(bank, NOTHING, NOTHING)
    found = detector.score({"neuron_states/bn": torch.tensor([[-7.0], [0.1], [1e9]])})
    assert found.tolist() == [-0.5, -0.25, -0.25]


def test_nac_takes_the_last_settings_and_the_last_layers():
    bank, outputs = states(60), states(9, seed=1)
    last = [(2, 0.5), (50, 8), (5, 3)]
    few = NAC(*last).fit(bank, NOTHING, NOTHING)
    assert few.reads == ("neuron_states/stage1", "neuron_states/stage2")
    many = NAC(*[(3, *values) if i != 1 else (6, *values) for i, values in enumerate(last)])
    deep = {name: bank[name] for name in few.reads}
    assert torch.equal(many.fit(deep, NOTHING, NOTHING).score(outputs), few.score(outputs))


def test_of_more_training_images_as_many_count_as_were_asked_for():
    one = {"neuron_states/bn": torch.zeros(30, 1)}
    detector = NAC(alphas=[1], bins=[4], full=[100], images=20).fit(one, NOTHING, NOTHING)
    assert detector.bank_images == 20
    assert detector.score(one)[0].item() == pytest.approx(-0.2)


def test_a_prediction_takes_one_pass_forward_and_back():
    assert NAC().fit(states(60), NOTHING, NOTHING).pass_count == PassCount(1, 1)


def test_the_tuned_setting_is_the_best_of_all():
    bank, normal, abnormal = states(80), states(50, seed=1), states(40, seed=2, scale=0.3)
    choose = Samples.join(normal, abnormal)
    grid = {"alphas": [[0.1, 1], [3], [1]], "bins": [[8], [8, 50], [8]], "full": [[9], [9], [2, 9]]}
    tuned = NACTuned(**grid).fit(bank, NOTHING, choose)
    labels = choose.abnormal.numpy()

    def rate(detector):
        return tnr_at_95_tpr(detector.score(choose.outputs).numpy(), labels)

    rates = {
        (alpha, bins, full): rate(
            NAC([alpha, 3, 1], [8, bins, 8], [9, 9, full]).fit(bank, NOTHING, NOTHING)
        )
        for alpha in (0.1, 1)
        for bins in (8, 50)
        for full in (2, 9)
    }
    assert len(set(rates.values())) > 2
    assert rate(tuned) == max(rates.values())


def test_the_fixed_settings_are_among_those_that_are_tuned():
    assert all(one in tuned for (one,), tuned in zip(NAC().grids, NACTuned().grids, strict=True))


@pytest.mark.parametrize(
    ("kind", "settings", "told"),
    [
        (NAC, {"alphas": [1, 2]}, "nac: alphas, bins and full take one entry for each layer"),
        (NAC, {"alphas": [], "bins": [], "full": []}, "one entry for each layer"),
        (NAC, {"bins": [50, 50, 50, 51]}, "nac bins=51: an even number, at least 4"),
        (NAC, {"bins": [50, 50, 50, 2]}, "nac bins=2: a whole number, at least 4"),
        (NAC, {"alphas": [1, 1, 1, 0]}, "nac alphas=.*above 0"),
        (NAC, {"full": [1, 1, 1, -1]}, "nac full=.*above 0"),
        (NAC, {"images": 0}, "nac images=0: a whole number, at least 1"),
        (NACTuned, {"alphas": [[1], [1], [1], []]}, "nac_tuned alphas=.*one or more numbers"),
    ],
)
def test_settings_out_of_range_are_refused(kind, settings, told):
    with pytest.raises(GradbenchError, match=told):
        kind(**settings)
