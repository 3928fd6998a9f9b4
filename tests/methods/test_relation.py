"""Relations to training images against their formula, one pair at a time, and known answers."""

import numpy as np
import pytest
import torch

from gradbench.errors import GradbenchError
from gradbench.methods import relation
from gradbench.methods.base import Samples
from gradbench.methods.relation import Relation

NOTHING = Samples.normal({})


@pytest.fixture(scope="module")
def given():
    """Return (bank, outputs) of 12 features, of either sign, and 4 classes."""
    draw = torch.Generator().manual_seed(0)
    return tuple(
        {"features": torch.randn(count, 12, generator=draw) + 0.5,
         "logits": 2 * torch.randn(count, 4, generator=draw)}
        for count in (60, 9)
    )  # fmt: skip


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum()


@pytest.mark.parametrize("hop", [1, 7])
@pytest.mark.parametrize("power", [1, 0.5, 4])
def test_relation_is_its_formula(given, power, hop, monkeypatch):
    bank, outputs = given
    rows = [(h.double().numpy(), softmax(z.double().numpy()))
            for h, z in zip(bank["features"], bank["logits"])][::hop]  # fmt: skip
    expected, left_out = [], 0
    for h, z in zip(outputs["features"].double().numpy(), outputs["logits"].double().numpy()):
        total = 0
        for other, q in rows:
            cosine = h @ other / np.linalg.norm(h) / np.linalg.norm(other)
            strength = max(cosine, 0) * (softmax(z) @ q)
            left_out += 0 < strength <= 0.03
            total += strength**power if strength > 0.03 else 0
        expected.append(-total)
    assert left_out
    detector = Relation(power, hop).fit(bank, NOTHING, NOTHING)
    np.testing.assert_allclose(detector.score(outputs).numpy(), expected, rtol=1e-5)
    monkeypatch.setattr(relation, "BLOCK", 2 * len(detector.features))
    np.testing.assert_allclose(detector.score(outputs).numpy(), expected, rtol=1e-5)


def test_relation_of_images_alike_across_and_opposite():
    bank = {"features": torch.tensor([[2.0, 0.0], [0.0, 5.0]]),
            "logits": torch.tensor([[99.0, 0.0], [99.0, 0.0]])}  # fmt: skip
    outputs = {"features": torch.tensor([[3.0, 0.0], [-1.0, 0.0], [1.0, 1.0], [3.0, 0.0]]),
               "logits": torch.tensor([[99.0, 0], [99.0, 0], [99.0, 0], [0.0, 0.0]])}  # fmt: skip
    found = Relation().fit(bank, NOTHING, NOTHING).score(outputs)
    assert found.tolist() == pytest.approx([-1, 0, -(2**0.5), -0.5])


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"power": 0}, "relation power=0: a number above 0"),
        ({"hop": 0}, "relation hop=0: a whole number, at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(settings, told):
    with pytest.raises(GradbenchError, match=told):
        Relation(**settings)
