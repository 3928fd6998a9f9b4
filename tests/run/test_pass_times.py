"""The passes of a detector alone are timed once, and tell its speed in costs.md."""

from types import SimpleNamespace

import pytest
from _dummies import images

from gradbench.reporting.costs import Cost, costs_table, gathered, with_passes
from gradbench.run import pass_times
from gradbench.store import Store


@pytest.fixture
def trial(store, monkeypatch):
    spent = {("logits",): 2.0, ("logits", "squared_norms/ones/bce"): 8.0}
    monkeypatch.setattr(pass_times, "seconds", lambda f, batch, reads: spent[reads])
    reads = {"a": ("logits",), "b": ("squared_norms/ones/bce", "logits"), "c": ("logits",)}
    experiment = SimpleNamespace(
        detectors=reads, detector=lambda name: SimpleNamespace(reads=reads[name])
    )
    f = SimpleNamespace(backbone=None, weights="w")
    return SimpleNamespace(
        experiment=experiment, f=f, images=SimpleNamespace(normal=images(100)), store=store
    )


def test_every_set_of_outputs_is_timed_once_on_one_batch(trial):
    pass_times.measure(trial)
    assert len(trial.store.made) == 2
    assert {what: c.images / c.seconds for (_, what), c in gathered(trial.store).items()} == {
        "logits": 32.0,
        "logits + squared_norms/ones/bce": 8.0,
    }
    again = Store(trial.store.root)
    trial.store = again
    pass_times.measure(trial)
    assert again.made == []


def test_a_detector_is_charged_for_its_own_passes(trial):
    pass_times.measure(trial)
    costs = gathered(trial.store)
    speed = with_passes(Cost(100, 1.0), costs, ["squared_norms/ones/bce", "logits"], None)
    assert speed == pytest.approx(1 / (1 / 100 + 1 / 8))
    assert with_passes(Cost(100, 1.0), costs, ["features"], None) is None
    assert "with passes" not in costs_table(trial.store, {"a": {"reads": ["logits"]}}, {})
