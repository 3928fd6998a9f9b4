"""Disagreement of networks or passes against its formulas, one image at a time, and a peer's."""

import numpy as np
import pytest
import torch

from gradbench.errors import GradbenchError
from gradbench.methods.base import PassCount
from gradbench.methods.ensemble import Ensemble, mutual_information
from gradbench.methods.fused import Fused
from gradbench.methods.mc_dropout import MCDropout


@pytest.fixture(scope="module")
def logits():
    """Return the logits of 5 networks for 20 images and 7 classes."""
    return 4 * torch.randn(20, 5, 7, generator=torch.Generator().manual_seed(0))


def probabilities(of_image):
    exps = np.exp(of_image.double().numpy())
    return exps / exps.sum(1, keepdims=True)


def variance(p):
    return np.mean([np.var(column, ddof=1) for column in p.T])


def entropy(p):
    return -sum(q * np.log(q) for q in p.mean(0))


def mutual_information_of(p):
    return entropy(p) - np.mean([-sum(q * np.log(q) for q in row) for row in p])


@pytest.mark.parametrize(
    ("measure", "formula"),
    [
        ("variance", variance),
        ("entropy", entropy),
        ("mutual_information", mutual_information_of),
    ],
)
def test_measures_are_their_formulas(logits, measure, formula):
    expected = [formula(probabilities(each)) for each in logits]
    for detector in (Ensemble(measure), MCDropout(5, measure)):
        (name,) = detector.reads
        found = detector.score({name: logits})
        assert found.dtype == torch.float64
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10)


def test_two_networks_that_are_sure_of_different_classes():
    """One says class 0, the other class 1, of four: each has variance 1/2, the entropy is log 2."""
    sure = {"members": torch.tensor([[[90.0, 0, 0, 0], [0, 90.0, 0, 0]]])}
    found = [Ensemble(m).score(sure).item() for m in ("variance", "entropy", "mutual_information")]
    assert found == pytest.approx([(0.5 + 0.5) / 4, np.log(2), np.log(2)])


def test_nearly_equal_predictions_keep_their_digits():
    """Of two logits that are d apart the mean KL is about d^2 p (1 - p) / 8."""
    for top, apart in ((0.0, 1e-5), (30.0, 1e-2), (60.0, 1e-2)):
        pair = torch.tensor([[[top, 0.0], [top + apart, 0.0]]], dtype=torch.float64)
        p = 1 / (1 + np.exp(-top))
        expected = apart**2 * p * np.exp(-top) * p / 8
        assert mutual_information(pair).item() == pytest.approx(expected, rel=1e-2, abs=0)


@pytest.mark.parametrize("measure", ["variance", "entropy", "mutual_information"])
def test_networks_that_never_doubt_have_finite_scores(measure):
    found = Ensemble(measure).score({"members": torch.tensor([[[900.0, 0.0], [0.0, 900.0]]])})
    assert found.isfinite().all()


def test_the_variance_is_that_of_pytorch_ood(logits):
    theirs = pytest.importorskip("pytorch_ood.detector", reason="needs the extra `test`")

    class Told(torch.nn.Module):
        """A network whose passes give the logits one after the other."""

        def __init__(self):
            super().__init__()
            self.left = iter(logits.double().unbind(1))

        def forward(self, x):
            return next(self.left)

    found = theirs.MCD(Told(), samples=5).predict(torch.zeros(20, 1))
    ours = MCDropout(passes=5).score({"dropout_logits/5": logits})
    torch.testing.assert_close(ours, found, rtol=1e-10, atol=0)


def test_passes_of_an_image():
    assert MCDropout(passes=7).pass_count == PassCount(7, 0)
    detector = Ensemble()
    detector.networks = 3
    assert detector.pass_count == PassCount(3, 0)
    fused = Fused(
        ["energy", "ensemble_variance", {"use": "mc_dropout", "passes": 4}], mirrored=True
    )
    fused.networks = 3
    assert fused.reads_members
    assert fused.pass_count == PassCount(2 * (1 + 3 + 4), 0)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Ensemble("spread"), "no measure named 'spread'"),
        (lambda: MCDropout(1), "mc_dropout passes=1"),
        (lambda: MCDropout(2.5), "mc_dropout passes=2.5"),
    ],
)
def test_settings_out_of_range(make, told):
    with pytest.raises(GradbenchError, match=f"^{told}"):
        make()
