"""The five steps of the method, put together."""

from __future__ import annotations

import contextlib

import numpy as np

from gradbench.backbones.checkpoint import existing_checkpoint
from gradbench.backbones.devices import set_exact_arithmetic
from gradbench.backbones.recipe import resolve_precision
from gradbench.backbones.trained_network import NetworkRequest, class_names, load_or_train
from gradbench.backbones.workers import WorkerPool
from gradbench.challenges.attacks.base import Adversarial
from gradbench.challenges.base import Derived
from gradbench.data.dataset import MissingData
from gradbench.data.in_distribution import (
    OTHER_FINGERPRINTS,
    TRAINED_ON,
    WITHOUT_HOLD_OUT,
    InDistribution,
)
from gradbench.errors import Faulty
from gradbench.protocols.presets import Transfer
from gradbench.run import controls, pass_times, summary, thresholds, transferring
from gradbench.run.clean_images import clean_images
from gradbench.run.experiment import Cell, Experiment
from gradbench.run.faults import check_some, others_go_on
from gradbench.run.judging import judge, resampled
from gradbench.run.results import Results
from gradbench.run.sides import check_enough, sides
from gradbench.run.trial import Trial, archive_for, brought, from_archive
from gradbench.store import Store
from gradbench.support.progress import say, step

LOOKED_AT = 20
"""Images of another set that are decoded before a run begins; its files may be any number."""


def run(experiment: Experiment, store: Store) -> Results:
    """Carry out an experiment: train, challenge, read gradients, fit detectors, measure.

    Args:
        experiment: what is asked for.
        store: where products of the steps lie; what is there is not computed again.

    Raises:
        GradbenchError: if in-distribution images are missing, a network does not fit, or the
            identity control fails.
    """
    set_exact_arithmetic()
    for reason in experiment.refused.values():
        say(f"left out: {reason}")
    check_checkpoints(experiment)
    images = clean_images(experiment)
    results = Results(experiment, images)
    check_attacks(experiment, images)
    with step("looking at the published archives"):
        check_archives(experiment, images, store)
    with step("looking at the other sets"):
        look_at_challenges(experiment, images)
    with _pool(experiment) as pool:
        for seed in experiment.seeds:
            wanted = order(experiment, images, seed)
            # step 1
            f = load_or_train(wanted, images.train, images.test, store, pool, images.hold_out)
            trial = Trial(experiment, images, f, seed, store, pool)
            if seed == experiment.seeds[0]:
                tell_hold_out(experiment, images)
            results.add_network(seed, f, trial.accuracy)
            controls.identity(trial)
            measure(trial, results)
            if isinstance(experiment.protocol, Transfer):
                with step("measuring detectors on challenges that they were not fitted on"):
                    transferring.measure(trial, results)
            controls.run(trial, results)
            with step("thresholds on the hold-out"):
                thresholds.measure(trial, results)
            pass_times.measure(trial, results)
    check_some(results)
    with step("means and differences of the detectors"):
        summary.add(results)
    return results


def check_checkpoints(experiment: Experiment) -> None:
    """Refuse a checkpoint that is not there, of any seed, before the first network is measured.

    Raises:
        GradbenchError: naming the file.
    """
    for seed in experiment.seeds:
        path = experiment.backbone(seed).get("checkpoint")
        if path:
            existing_checkpoint(path)


def tell_hold_out(experiment: Experiment, images: InDistribution) -> None:
    """Say where the hold-out is from if it is not what gradbench keeps from its own networks."""
    known = images.provenance
    if not known.reason:
        return
    more = ""
    if experiment.config["backbone"].get("trained_on") is None:
        ways = (
            "a file of names"
            if OTHER_FINGERPRINTS in known.reason
            else f"{WITHOUT_HOLD_OUT} or a file of names"
        )
        more = f"; {TRAINED_ON}={ways} tells otherwise"
    say(f"hold-out: {known.describe_hold_out(images.hold_out, images.test)}{more}")


def _pool(experiment: Experiment) -> contextlib.AbstractContextManager[WorkerPool | None]:
    """Return the workers of `devices=N`, None within where this process works alone."""
    several = len(experiment.devices) > 1
    return WorkerPool(experiment.devices) if several else contextlib.nullcontext()


def check_attacks(experiment: Experiment, images: InDistribution) -> None:
    """Refuse attacks on a network that will tell fewer than two classes apart.

    Raises:
        GradbenchError: naming the attack.
    """
    for cell in experiment.cells:
        if isinstance(cell.challenge, Adversarial):
            cell.challenge.check_classes(len(class_names(images.train)))


def check_archives(experiment: Experiment, images: InDistribution, store: Store) -> None:
    """Look at the published archives that will be read, before any work.

    Raises:
        GradbenchError: if a file is damaged, or its images cannot be matched where they must be.
    """
    seen = set()
    for cell in experiment.cells:
        if cell.name in seen:
            continue
        seen.add(cell.name)
        with contextlib.suppress(MissingData):  # which becomes a row without numbers
            archive = archive_for(experiment, cell)
            if archive is not None:
                from_archive(experiment, cell, archive, images, store)


def look_at_challenges(experiment: Experiment, images: InDistribution) -> None:
    """Load every other set once and say which cannot be measured, before the first long pass.

    Raises:
        GradbenchError: if the protocol cannot even divide the clean images.
    """
    groups = images.normal.groups
    experiment.protocol.folds(groups, groups, experiment.config["evaluation"]["seed"])
    for cell in experiment.cells:
        if isinstance(cell.challenge, Derived):
            continue
        try:
            found = brought(experiment, cell, images.normal, experiment.data).images
            some = np.linspace(0, len(found) - 1, min(LOOKED_AT, len(found))).astype(int)
            found.images[np.unique(some)]
            check_enough(experiment, groups, found.groups)
        except (MissingData, Faulty) as reason:
            say(f"{cell.title} will not be measured: {reason}")


def measure(trial: Trial, results: Results) -> None:
    """Measure every detector on every challenge, and add the rows to the results."""
    results.add_outputs(trial.seed, trial.normal)
    across = isinstance(trial.experiment.protocol, Transfer)
    for cell in trial.experiment.cells:
        with step(f"measuring {cell.title}"):
            _measure_cell(trial, cell, across, results)


def _measure_cell(trial: Trial, cell: Cell, across: bool, results: Results) -> None:
    """Measure every detector on one challenge; those that learn from it elsewhere if `across`."""
    try:
        made = trial.challenge(cell)  # step 2
        if made.attack is not None:
            results.add_attack(trial.seed, cell, made.attack)
        normal, abnormal = sides(trial, cell, made)  # step 3
    except (MissingData, Faulty) as reason:
        results.add_hole(trial.seed, cell, str(reason))
        say(f"{cell.title}: not measured: {reason}")
        return
    results.add_outputs(trial.seed, abnormal)
    for name, reason in trial.experiment.refused.items():
        results.add_hole(trial.seed, cell, reason, method=name)
    for name in trial.experiment.detectors:
        if across and trial.experiment.detector(name).learns_from_challenges:
            continue  # see `transferring`
        with others_go_on(results, trial.seed, cell, name):
            judged = judge(trial, name, normal, abnormal)  # steps 4 and 5
            results.add(trial.seed, cell, abnormal.images, name, judged)
            results.add_verdict(trial.seed, cell, name, judged, resampled(trial, judged))
    controls.beside(trial, cell, made, normal, abnormal, results)


def order(experiment: Experiment, images: InDistribution, seed: int) -> NetworkRequest:
    """Return what step 1 is asked for."""
    mean, std = experiment.dataset.normalisation(images.train)
    return NetworkRequest(
        experiment.backbone(seed),
        resolve_precision(experiment.recipe, experiment.device),
        seed,
        tuple(mean),
        tuple(std),
        experiment.device,
    )
