"""The clean images of a run by role, from what is known of the networks' training images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from gradbench.backbones.checkpoint import read_checkpoint
from gradbench.backbones.trained_network import trained_fingerprints
from gradbench.data.in_distribution import (
    ALL,
    WITHOUT_HOLD_OUT,
    InDistribution,
    TrainingRecord,
    load_in_distribution,
    read_source_ids,
)
from gradbench.data.settings import DataSettings
from gradbench.run.experiment import Experiment
from gradbench.support.progress import step


def clean_images(experiment: Experiment, data: DataSettings | None = None) -> InDistribution:
    """Load the in-distribution images; no network of the run was trained on the hold-out.

    Where that cannot be had, `provenance` says so; see `load_in_distribution`.

    Args:
        experiment: what is asked for.
        data: where images are looked for, if elsewhere than the experiment says.

    Raises:
        GradbenchError: if images, a checkpoint or a list of training images cannot be read.
    """
    networks = tuple(trained_on(experiment))
    limit = experiment.config["limit"]
    return load_in_distribution(experiment.dataset, data or experiment.data, limit, networks)


def trained_on(experiment: Experiment) -> Iterator[TrainingRecord]:
    """Yield what is known of the training images of every network."""
    for seed in experiment.seeds:
        config = experiment.backbone(seed)
        path, said = config.get("checkpoint"), config.get("trained_on")
        if not path:
            yield TrainingRecord()
        elif said == ALL:
            yield TrainingRecord(said)
        elif said not in (None, WITHOUT_HOLD_OUT):
            yield TrainingRecord(sources=read_source_ids(said), file=said)
        else:  # what the checkpoint itself tells goes before what is said of it
            with step(f"reading {path}"):
                prints = trained_fingerprints(read_checkpoint(path)[1])
            told = TrainingRecord(WITHOUT_HOLD_OUT) if said else TrainingRecord(ALL, certain=False)
            yield replace(told, fingerprints=prints or None)
