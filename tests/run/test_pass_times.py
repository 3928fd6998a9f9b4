"""The passes of a detector alone are timed once, and tell its speed and memory in costs.md."""

import csv
from types import SimpleNamespace

import pytest
import torch
from _dummies import images

from gradbench.methods.energy import Energy
from gradbench.methods.gradient_uncertainty import GradientUncertainty
from gradbench.methods.msp import MSP
from gradbench.methods.odin import Odin, OdinFixed
from gradbench.outputs.perturbed import PerturbedPass
from gradbench.report.costs import collect_costs, costs_table, write_costs
from gradbench.run import pass_times
from gradbench.run.pass_times import costliest
from gradbench.store import Key, Store

DETECTORS = {
    "msp": MSP,
    "energy": Energy,
    "gradient_uncertainty": GradientUncertainty,
    "odin": Odin,
    "odin_fixed": OdinFixed,
}
SPENT = {(0, 0): 2.0, (1, 1): 8.0, (1, 0): 2.0, (2, 1): 16.0}
"""Seconds of a batch by forward and backward passes."""
NORMS = "squared_norms/ones/bce"
STEP = "logits after 1 step"


def state(temperature, magnitude):
    found = {"temperature": temperature, "magnitude": magnitude}
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in found.items()}


@pytest.fixture
def results():
    """Return what a run found whose odin wants a step on the second challenge alone."""
    experiment = SimpleNamespace(detectors=DETECTORS, detector=lambda name: DETECTORS[name]())
    states = {
        (0, "first", "odin"): state(10.0, 0.0),
        (0, "second", "odin"): state(100.0, 0.01),
        (0, "third", "odin"): state(100.0, 0.05),
    }
    return SimpleNamespace(experiment=experiment, states=states)


@pytest.fixture
def trial(store, monkeypatch, results):
    def seconds(_f, _batch, detector, _reads):
        return SPENT[detector.pass_count.forward, detector.pass_count.backward]

    monkeypatch.setattr(pass_times, "seconds", seconds)
    return SimpleNamespace(
        experiment=results.experiment,
        f=SimpleNamespace(backbone=None, weights="w"),
        outputs_of=lambda names: [SimpleNamespace(name=name, weights="") for name in names],
        lessons=SimpleNamespace(taught=lambda outputs: (outputs, {})),
        images=SimpleNamespace(normal=images(100)),
        store=store,
        seed=0,
    )


def fitted(results):
    return {name: costliest(results, name) for name in DETECTORS}


def scored(store, name, peak, seconds):
    """Keep a product as a detector's scores of 100 images leave it, of a given peak and time."""
    key = Key("scores", 1, {"detector": name})
    product = store.make(key, lambda *_: {"detector": name, "images": 100})
    product.about.update(peak_mib=peak, seconds=seconds)
    store.used[key] = (product, True)


def scored_and_timed(trial, results):
    """Return a store with scores at 100 images a second and 3 MiB, and passes of 50 MiB."""
    pass_times.time_passes(trial, results)
    for product, _ in trial.store.used.values():
        product.about["peak_mib"] = 50.0
    for name in DETECTORS:
        scored(trial.store, name, 3.0, 1.0)
    return trial.store


def cells(table, name):
    (line,) = [line for line in table.splitlines() if line.startswith(f"| {name} ")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_equal_passes_are_timed_once_on_one_batch(trial, results):
    pass_times.time_passes(trial, results)
    found = collect_costs(trial.store, fitted(results))
    assert dict(zip(found["what"], zip(found["images"], found["seconds"]))) == {
        "logits": (64, 2.0),
        NORMS: (64, 8.0),
        STEP: (2 * 64, 2 * 16.0),  # odin and odin_fixed take other steps
    }
    again = trial.store = Store(trial.store.root)
    pass_times.time_passes(trial, results)
    assert again.made == []


def test_a_fit_that_takes_a_step_stands_for_those_that_take_none(results):
    assert costliest(results, "odin").magnitude == 0.01
    assert costliest(results, "odin", seed=0).magnitude == 0.01
    assert costliest(results, "odin", seed=1) is None
    assert costliest(results, "odin_fixed", seed=1).pass_count.backward == 1
    del results.states[0, "second", "odin"], results.states[0, "third", "odin"]
    assert costliest(results, "odin").magnitude == 0
    assert costliest(results, "odin").pass_count.backward == 0


def test_a_detector_that_was_never_fitted_is_not_timed(trial, results):
    results.states.clear()
    pass_times.time_passes(trial, results)
    costs = collect_costs(trial.store, fitted(results))
    assert list(costs.loc[costs["what"] == STEP, "images"]) == [64]  # of odin_fixed
    assert cells(costs_table(costs, fitted(results)), "odin")[1:3] == ["", ""]


def test_every_detector_is_charged_for_its_own_passes(trial, results):
    store = scored_and_timed(trial, results)
    rates = {"logits": 32, NORMS: 8, STEP: 4}
    reads = {"msp": "logits", "gradient_uncertainty": NORMS, "odin": STEP, "odin_fixed": STEP}
    costs = collect_costs(store, fitted(results))
    for name, passes in reads.items():
        whole = 1 / (1 / 100 + 1 / rates[passes])
        rate = costs.loc[(costs["step"] == "scores") & (costs["what"] == name)]
        assert list(rate["with_passes_per_second"]) == pytest.approx([whole])
        cell = cells(costs_table(costs, fitted(results)), name)
        assert cell[3:5] == ["100", f"{whole:.0f}"]


def test_without_timed_passes_there_is_no_speed_with_them(store, results):
    scored(store, "msp", 3.0, 1.0)
    costs = collect_costs(store, fitted(results))
    assert costs["with_passes_per_second"].isna().all()
    assert "| with passes" not in costs_table(costs, fitted(results))


def test_the_csv_tells_the_speed_with_passes(trial, results, tmp_path):
    store = scored_and_timed(trial, results)
    write_costs(collect_costs(store, fitted(results)), tmp_path / "costs.csv")
    with open(tmp_path / "costs.csv", newline="", encoding="utf-8") as stream:
        lines = {line["what"]: line for line in csv.DictReader(stream)}
    assert float(lines["odin"]["with_passes_per_second"]) == pytest.approx(1 / 0.26, rel=1e-3)
    assert lines["logits"]["with_passes_per_second"] == ""


def test_memory_is_that_of_passes_where_they_take_more_than_scoring(trial, results):
    store = scored_and_timed(trial, results)
    scored(store, "energy", 70.0, 1.0)
    table = costs_table(collect_costs(store, fitted(results)), fitted(results))
    peaks = {name: cells(table, name)[5] for name in DETECTORS}
    assert peaks == dict.fromkeys(DETECTORS, "50.0") | {"energy": "70.0"}


def test_passes_over_perturbed_images_are_made_to_be_timed(monkeypatch):
    made = []
    monkeypatch.setattr(PerturbedPass, "__call__", lambda *args: made.append(args))
    backbone = SimpleNamespace(device=torch.device("cpu"))
    assert pass_times.seconds(backbone, images(70), OdinFixed(), []) > 0
    assert [len(pixels) for _, _, pixels in made] == [64, 6, 64, 6]  # the second time counts
    assert {what.magnitudes for what, *_ in made} == {(0.0014,)}
