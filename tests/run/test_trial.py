"""How a run takes the images of the published archives."""

from types import SimpleNamespace

import pytest

from gradbench.evaluation.presets import Access2023, Icip2020
from gradbench.evaluation.protocols import Grouped
from gradbench.run import trial


@pytest.mark.parametrize("kind", [Grouped, Icip2020, Access2023])
@pytest.mark.parametrize("split", ["grouped", "random"])
def test_a_random_split_of_any_protocol_needs_no_twins(kind, split, monkeypatch):
    monkeypatch.setattr(trial, "published", lambda *given: given)
    cell = SimpleNamespace(challenge=None, level=1, title="fog 1")
    experiment = SimpleNamespace(protocol=kind(split=split))
    given = trial.from_archive(experiment, cell, None, "images", None)
    assert given[given.index("images") + 1] is (split == "grouped")
