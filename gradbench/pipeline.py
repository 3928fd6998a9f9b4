"""The five steps of the method, put together."""

from __future__ import annotations

import contextlib

from gradbench.backbones import checkpoint
from gradbench.backbones.obtain import Order, class_names, obtain
from gradbench.backbones.recipe import resolved
from gradbench.challenges.attacks.base import Adversarial
from gradbench.data.dataset import MissingData
from gradbench.data.gather import InDistribution, gather
from gradbench.errors import Faulty
from gradbench.evaluation.transfer import Transfer
from gradbench.run import controls, pass_times, summary, thresholds, transferring
from gradbench.run.experiment import Experiment
from gradbench.run.faults import check_some, others_go_on
from gradbench.run.judging import judge, resampled
from gradbench.run.results import Results
from gradbench.run.sides import sides
from gradbench.run.trial import Trial, archive_for, from_archive
from gradbench.store import Store
from gradbench.support.progress import say
from gradbench.workers.crew import Crew
from gradbench.workers.devices import exact_arithmetic


def run(experiment: Experiment, store: Store) -> Results:
    """Carry out an experiment: train, challenge, read gradients, fit detectors, measure.

    Args:
        experiment: what is asked for.
        store: where products of the steps lie; what is there is not computed again.

    Raises:
        GradbenchError: if in-distribution images are missing, a network does not fit, or the
            identity control fails.
    """
    exact_arithmetic()
    for reason in experiment.refused.values():
        say(f"left out: {reason}")
    check_checkpoints(experiment)
    images = gather(experiment.dataset, experiment.data, experiment.config["limit"])
    results = Results(experiment, images)
    check_attacks(experiment, images)
    check_archives(experiment, images, store)
    with _crew(experiment) as crew:
        for seed in experiment.seeds:
            wanted = order(experiment, images, seed)
            f = obtain(wanted, images.train, images.test, store, crew)  # step 1
            trial = Trial(experiment, images, f, seed, store, crew)
            results.add_network(seed, f)
            controls.identity(trial)
            measure(trial, results)
            if isinstance(experiment.protocol, Transfer):
                transferring.measure(trial, results)
            controls.run(trial, results)
            thresholds.measure(trial, results)
            pass_times.measure(trial, results)
    check_some(results)
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
            checkpoint.there(path)


def _crew(experiment: Experiment) -> contextlib.AbstractContextManager[Crew | None]:
    """Return the workers of `devices=N`, None within where this process works alone."""
    several = len(experiment.devices) > 1
    return Crew(experiment.devices) if several else contextlib.nullcontext()


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


def measure(trial: Trial, results: Results) -> None:
    """Measure every detector on every challenge, and add the rows to the results."""
    results.add_outputs(trial.seed, trial.normal)
    across = isinstance(trial.experiment.protocol, Transfer)
    for cell in trial.experiment.cells:
        try:
            made = trial.challenge(cell)  # step 2
            if made.attack is not None:
                results.add_attack(trial.seed, cell, made.attack)
            normal, abnormal = sides(trial, cell, made)  # step 3
        except (MissingData, Faulty) as reason:
            results.add_hole(trial.seed, cell, str(reason))
            say(f"{cell.title}: not measured: {reason}")
            continue
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


def order(experiment: Experiment, images: InDistribution, seed: int) -> Order:
    """Return what step 1 is asked for."""
    mean, std = experiment.dataset.normalisation(images.train)
    return Order(
        experiment.backbone(seed),
        resolved(experiment.recipe, experiment.device),
        seed,
        tuple(mean),
        tuple(std),
        experiment.device,
    )
