"""A run: train or load f, challenge it, and evaluate every case of the experiment."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import numpy as np

from gradbench.backbones.checkpoint import existing_checkpoint
from gradbench.backbones.devices import set_exact_arithmetic
from gradbench.backbones.trained_network import (
    TrainedNetwork,
    class_names,
    initial_network,
    load_or_train,
)
from gradbench.backbones.workers import WorkerPool
from gradbench.challenges.attacks.base import Adversarial
from gradbench.challenges.base import Derived
from gradbench.data.imageset import to_float
from gradbench.data.in_distribution import (
    OTHER_FINGERPRINTS,
    TRAINED_ON,
    WITHOUT_HOLD_OUT,
    InDistribution,
)
from gradbench.errors import Faulty, MissingData
from gradbench.outputs.read import compute_outputs
from gradbench.run.cases import Case, cases
from gradbench.run.challenge_images import load_challenge, published, setup
from gradbench.run.context import (
    NetworkContext,
    check_enough,
    clean_images,
    network_request,
)
from gradbench.run.evaluate import evaluate
from gradbench.run.experiment import Cell, Experiment
from gradbench.run.pass_times import time_passes
from gradbench.run.results import Results, challenge_facts
from gradbench.run.summary import all_rows
from gradbench.statistics.controls import LEVEL, assert_identical
from gradbench.store import Key, Store
from gradbench.support.progress import say, step

LOOKED_AT = 20
"""Images of another set that are decoded before a run begins; its files may be any number."""
TRIED = 200
"""Images on which a challenge of strength zero is tried."""


def run(experiment: Experiment, store: Store) -> Results:
    """Carry out an experiment: evaluate every case for every network, and derive the rows.

    Products of the steps that are in the store are not computed again.

    Raises:
        GradbenchError: if in-distribution images are missing, a network does not fit, or the
            identity control fails.
    """
    set_exact_arithmetic()
    for reason in experiment.refused.values():
        say(f"left out: {reason}")
    check_checkpoints(experiment)
    images = clean_images(experiment)
    check_challenges(experiment, images, store)
    first = initial_network(network_request(experiment, images, experiment.seeds[0]), images.train)
    experiment.outputs.of_network(first, experiment.reads)  # refused before a long training
    results = Results(experiment, images)
    several = len(experiment.devices) > 1
    with WorkerPool(experiment.devices) if several else contextlib.nullcontext() as pool:

        def network(seed: int) -> TrainedNetwork:
            request = network_request(experiment, images, seed)
            return load_or_train(request, images.train, images.test, store, pool, images.hold_out)

        members = {s: network(s) for s in experiment.seeds} if experiment.comparing else {}
        for seed in experiment.seeds:
            # trained or found before anything else: a run killed later goes on from there
            f = members.get(seed) or network(seed)
            every = tuple(members.values())
            context = NetworkContext(experiment, images, f, seed, store, pool, every)
            if seed == experiment.seeds[0]:
                _tell_hold_out(experiment, images)
            results.add_network(context)
            evaluate_network(context, results)
            time_passes(context, results)
    results.check_measured()
    with step("means and differences of the detectors"):
        results.rows = all_rows(results)
    return results


def evaluate_network(context: NetworkContext, results: Results) -> None:
    """Evaluate all cases of one network, and add their results."""
    experiment = context.experiment
    context.faults |= identity_control(context)
    # cases of a challenge come while its images are in memory, then those that need several
    of_cell: dict[Cell, list[Case]] = {cell: [] for cell in experiment.cells}
    others = []
    for case in cases(experiment):
        at_home = case.cell in of_cell and case.fitted_on in (None, case.cell)
        (of_cell[case.cell] if at_home else others).append(case)
    for cell, own_cases in of_cell.items():
        with step(f"measuring {cell.title}"):
            facts = challenge_facts(context, cell)
            results.challenges.append(facts)
            if facts.missing:
                say(f"{cell.title}: not measured: {facts.missing}")
            _evaluate_all(own_cases, context, results)
    _evaluate_all(others, context, results)
    for result in results.cases:
        ranked = result.p is not None and result.seed == context.seed
        if ranked and (p_holm := results.holm(result)) < LEVEL:
            say(
                f"warning: {result.case.title} tells clean images with arbitrary labels apart "
                f"(p = {result.p:.3g}, {p_holm:.3g} after Holm); its other numbers are in doubt"
            )


def _evaluate_all(todo: Sequence[Case], context: NetworkContext, results: Results) -> None:
    for (role, title), group in groupby(todo, lambda case: (case.role, case.cell.title)):
        label = {
            "main": f"detectors on {title}",
            "transfer": f"transfer to {title}",
            "threshold": "thresholds on the hold-out",
        }
        controlled = role if role == title else f"{role} of {title}"
        with step(label.get(role, f"control {controlled}")):
            for case in group:
                result = evaluate(case, context)
                if result is None:
                    continue
                results.cases.append(result)
                # of those refused it was said before the first network
                if not result.fault or result.shared or case.method in context.experiment.refused:
                    continue
                if case.title not in results.faults:
                    say(f"{case.title} is left out on {title}: {result.fault}")
                results.faults[case.title] = result.fault


def identity_control(context: NetworkContext) -> dict[str, str]:
    """Stop the run unless every derived challenge of strength zero changes nothing.

    Pixels must be equal bit for bit, and so must the outputs of f, computed afresh for both: kept
    outputs are found by their pixels, so they could not differ.

    Returns:
        Why challenges from outside are left out, by name: they make no images, or other ones each
        time.

    Raises:
        GradbenchError: naming the challenge that changes something.
    """
    experiment, clean = context.experiment, context.images.normal
    if not experiment.settings.controls.identity:
        return {}
    tried = {cell.name: cell for cell in experiment.cells if isinstance(cell.challenge, Derived)}
    first, faults = clean.select(np.arange(min(TRIED, len(clean)))), {}
    named = context.outputs_of(experiment.reads)
    others = {output.name: output.weights for output in named if output.weights}
    for name, cell in tried.items():
        zero = setup(experiment, cell, context.f, strength=0.0)

        def build(_folder: Path, _: Path, zero=zero, name: str = name) -> dict:
            made = zero.make(first, np.arange(len(first)), compare=True)
            reads, _ = context.lessons.taught(named)
            pixels = (to_float(images).numpy() for images in (first.images[slice(None)], made))
            assert_identical(*pixels, f"identity control: pixels of {name}")
            before, after = (
                compute_outputs(context.f.backbone, images, slice(0, len(first)), reads).values
                for images in (first, replace(first, images=made))
            )
            for output in before:
                both = before[output].numpy(), after[output].numpy()
                assert_identical(*both, f"identity control: {output} of {name}")
            return {"images": len(first)}

        (made_of,) = zero.keys(first)
        inputs = {"challenge": made_of.digest, "weights": context.f.weights} | others
        key = Key("identity", 1, {"reads": experiment.reads}, inputs)
        try:
            with step(f"identity control: {name} of strength zero on {len(first)} images"):
                context.store.make(key, build)
        except Faulty as fault:
            faults[name] = str(fault)  # which is said where it would be measured
    return faults


def check_checkpoints(experiment: Experiment) -> None:
    """Refuse a checkpoint that is not there, of any seed, before the first network is measured."""
    for seed in experiment.seeds:
        path = experiment.backbone(seed).get("checkpoint")
        if path:
            existing_checkpoint(path)


def check_challenges(experiment: Experiment, images: InDistribution, store: Store) -> None:
    """Look at every challenge before the first long pass, and say which cannot be measured.

    Raises:
        GradbenchError: for an attack on a network of one class, a damaged archive, or a protocol
            that cannot even divide the clean images.
    """
    for cell in experiment.cells:
        if isinstance(cell.challenge, Adversarial):
            cell.challenge.check_classes(len(class_names(images.train)))
    with step("looking at the published archives"):
        for cell in {cell.name: cell for cell in reversed(experiment.cells)}.values():
            with contextlib.suppress(MissingData):  # which becomes a row without numbers
                published(experiment, cell, images, store)
    groups = images.normal.groups
    experiment.protocol.folds(groups, groups, experiment.evaluation.seed)
    with step("looking at the other sets"):
        for cell in experiment.cells:
            if isinstance(cell.challenge, Derived):
                continue
            try:
                abnormal = load_challenge(experiment, cell, images.normal).images
                some = np.linspace(0, len(abnormal) - 1, min(LOOKED_AT, len(abnormal)))
                abnormal.images[np.unique(some.astype(int))]  # which decodes them
                check_enough(experiment, groups, abnormal.groups)
            except (MissingData, Faulty) as reason:
                say(f"{cell.title} will not be measured: {reason}")


def _tell_hold_out(experiment: Experiment, images: InDistribution) -> None:
    """Say where the hold-out is from if it is not what gradbench keeps from its own networks."""
    provenance = images.provenance
    if not provenance.reason:
        return
    more = ""
    if experiment.backbone(experiment.seeds[0]).get("trained_on") is None:
        listed = OTHER_FINGERPRINTS in provenance.reason
        ways = "a file of names" if listed else f"{WITHOUT_HOLD_OUT} or a file of names"
        more = f"; {TRAINED_ON}={ways} tells otherwise"
    say(f"hold-out: {provenance.describe_hold_out(images.hold_out, images.test)}{more}")
