"""The five steps of the method, put together."""

from __future__ import annotations

import torch

from gradbench import controls
from gradbench.backbones.obtain import Network, Order, obtain
from gradbench.cells import Images, challenge, judge
from gradbench.data.dataset import MissingData
from gradbench.data.gather import InDistribution, gather
from gradbench.experiment import Experiment
from gradbench.extraction.extract import extract
from gradbench.progress import say
from gradbench.results import Results
from gradbench.store import Store


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
    images = gather(experiment.dataset, experiment.data, experiment.config["limit"])
    results = Results(experiment, images)
    for seed in experiment.seeds:
        f = obtain(order(experiment, images, seed), images.train, images.test, store)  # step 1
        results.add_network(seed, f)
        controls.identity(experiment, images.normal, f, store)
        measure(experiment, images, f, seed, results, store)
        controls.run(experiment, images, f, seed, results, store)
    return results


def exact_arithmetic() -> None:
    """Have accelerators compute in full float32 and by the same algorithms every time."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


def order(experiment: Experiment, images: InDistribution, seed: int) -> Order:
    """Return what step 1 is asked for."""
    mean, std = experiment.dataset.normalisation(images.train)
    return Order(
        experiment.config["backbone"],
        experiment.recipe,
        seed,
        tuple(mean),
        tuple(std),
        experiment.device,
    )


def measure(
    experiment: Experiment,
    images: InDistribution,
    f: Network,
    seed: int,
    results: Results,
    store: Store,
) -> None:
    """Measure every detector on every challenge, and add the rows to the results."""
    normal = extract(f.backbone, f.weights, images.normal, experiment.reads, store)
    results.add_outputs(seed, images.normal, normal)
    clean = Images(images.normal, normal)
    for cell in experiment.cells:
        try:
            made, attack = challenge(experiment, cell, images.normal, f, store)  # step 2
        except MissingData as reason:
            results.add_hole(seed, cell, str(reason))
            say(f"{cell.title}: not measured: {reason}")
            continue
        outputs = extract(f.backbone, f.weights, made, experiment.reads, store)  # step 3
        results.add_outputs(seed, made, outputs)
        if attack is not None:
            results.add_attack(seed, cell, attack)
        for name in experiment.detectors:
            judged = judge(experiment, name, clean, Images(made, outputs), f, store)  # steps 4, 5
            results.add(seed, cell, made, name, judged)
