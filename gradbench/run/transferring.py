"""Protocol `transfer`: detectors that were fitted on one challenge, measured on every other.

The rows of such a detector carry the name of what it was fitted on: `gradient@svhn`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file
from torch import Tensor

from gradbench.challenges.base import Derived
from gradbench.data.dataset import MissingData
from gradbench.errors import Faulty
from gradbench.methods.fold_scores import PARTS, Scores, SideOutputs, one_thread, score_folds
from gradbench.outputs.cached_passes import seconds_of_passes
from gradbench.protocols.presets import Transfer
from gradbench.run.experiment import Cell
from gradbench.run.faults import others_go_on
from gradbench.run.fitting import clean
from gradbench.run.judging import Judged, judge, judged_scores, kept_state, resampled, scores_key
from gradbench.run.results import Results
from gradbench.run.sides import sides
from gradbench.run.synthetic import relation
from gradbench.run.trial import Seen, Trial
from gradbench.store import Key, Product
from gradbench.support.code_keys import code_key
from gradbench.support.tensors import save_tensors

FITS_VERSION = 1
TRANSFER_VERSION = 1


@dataclass(frozen=True)
class Fitted:
    """A challenge with the detectors fitted on it.

    Attributes:
        cell: the challenge.
        groups: of its normal and its abnormal images.
        fits: for each detector the product that holds it, fitted in every fold.
    """

    cell: Cell
    groups: tuple[np.ndarray, np.ndarray]
    fits: dict[str, tuple[Key, Product]]


def measure(trial: Trial, results: Results) -> None:
    """Fit every detector that learns from challenges on each of them, and measure it on all.

    One challenge is looked at at a time. On the very challenge it is measured as `grouped` does.
    """
    within = trial.experiment.protocol.within()
    names = [n for n, d in _detectors(trial) if d.learns_from_challenges]
    fitted = []
    for cell, normal, abnormal in _measurable(trial):
        fits = {}
        for name in names:
            method = f"{name}@{cell.title}"
            with others_go_on(results, trial.seed, cell, method, role="transfer"):
                fit = _fit(trial, name, normal, abnormal)
                judged = judge(trial, name, normal, abnormal, within)
                results.add(trial.seed, cell, abnormal.images, method, judged, role="transfer")
                read = partial(kept_state, judged.product)
                results.states.add((trial.seed, cell.title, name), read)
                fits[name] = fit
        fitted.append(Fitted(cell, (normal.images.groups, abnormal.images.groups), fits))
    for cell, normal, abnormal in _measurable(trial):
        for other in fitted:
            if other.cell == cell:
                continue
            own = [other.cell] if isinstance(other.cell.challenge, Derived) else []
            for name in other.fits:
                method, related = f"{name}@{other.cell.title}", relation(own, cell)
                with others_go_on(results, trial.seed, cell, method, role="transfer"):
                    judged = _across(trial, name, other, normal, abnormal)
                    note = f"{method}: {related}" if related else ""
                    results.add(
                        trial.seed,
                        cell,
                        abnormal.images,
                        method,
                        judged,
                        note=note,
                        role="transfer",
                    )
                    results.add_verdict(trial.seed, cell, method, judged, resampled(trial, judged))


def _detectors(trial: Trial) -> Iterator[tuple]:
    return ((name, trial.experiment.detector(name)) for name in trial.experiment.detectors)


def _measurable(trial: Trial) -> Iterator[tuple[Cell, Seen, Seen]]:
    """Yield the challenges whose images are there; why others are not is told elsewhere."""
    for cell in trial.experiment.cells:
        try:
            yield cell, *sides(trial, cell, trial.challenge(cell))
        except (MissingData, Faulty):
            continue


def _fit(trial: Trial, name: str, normal: Seen, abnormal: Seen) -> tuple[Key, Product]:
    """Return a detector fitted in every fold of a challenge, kept or made.

    The product holds the fitted state of each fold, and the scores of its *choose* part, which
    thresholds are chosen on.
    """
    experiment = trial.experiment
    within, settings = experiment.protocol.within(), experiment.config["evaluation"]
    like = scores_key(trial, name, normal.images, abnormal.images, within)
    key = Key("fits", FITS_VERSION, like.config, like.inputs)

    def build(folder: Path, _: Path) -> dict:
        states, chosen = {}, {}
        given = clean(trial, name)
        again = [trial.again(side.images) for side in (normal, abnormal)]
        before = seconds_of_passes(trial.store)
        folds = within.folds(normal.images.groups, abnormal.images.groups, settings["seed"])
        for number, fold in enumerate(folds):
            (scores,), state = score_folds(
                lambda: experiment.detector(name),
                normal.outputs,
                abnormal.outputs,
                [fold],
                experiment.config["detector"]["seed"],
                given,
                again,
            )
            states |= {f"{number}/{n}": t for n, t in state.items()}
            chosen |= {f"{number}/{part}": getattr(scores, part) for part in PARTS[2:]}
        save_tensors(states, folder / "states.safetensors")
        save_arrays(
            {n: np.ascontiguousarray(a, dtype=np.float64) for n, a in chosen.items()},
            str(folder / "chosen.safetensors"),
        )
        return {
            "detector": name,
            "images": len(normal.images) + len(abnormal.images),
            "seconds_of_passes": round(seconds_of_passes(trial.store) - before, 3),
        }

    return key, trial.store.make(key, build)


def _across(trial: Trial, name: str, fitted: Fitted, normal: Seen, abnormal: Seen) -> Judged:
    """Measure a detector on a challenge that it was not fitted on."""
    experiment = trial.experiment
    protocol: Transfer = experiment.protocol
    fit_key, fits = fitted.fits[name]
    groups = normal.images.groups, abnormal.images.groups
    seed = experiment.config["evaluation"]["seed"]
    rows = protocol.across(fitted.groups, groups, seed)
    folds = {**protocol.settings(), **code_key(protocol), "split_seed": seed}
    config = {"fits": fit_key.digest, "folds": folds}
    inputs = {"normal": normal.images.fingerprint, "abnormal": abnormal.images.fingerprint}

    def build(folder: Path, _: Path) -> dict:
        states = load_file(str(fits.path("states.safetensors")))
        chosen = load_file(str(fits.path("chosen.safetensors")))
        arrays = {n: t.numpy() for n, t in chosen.items()}
        looks = [SideOutputs(seen.outputs, trial.again(seen.images)) for seen in (normal, abnormal)]
        before = seconds_of_passes(trial.store)
        with one_thread():
            for number, part in enumerate(rows):
                detector = experiment.detector(name).load(_of_fold(states, number))
                for side, look, own in zip(PARTS, looks, (part.normal, part.abnormal)):
                    arrays[f"{number}/{side}"] = look.score(detector, own).astype(np.float64)
        save_arrays(
            {n: np.ascontiguousarray(a) for n, a in arrays.items()},
            str(folder / "scores.safetensors"),
        )
        return {
            "detector": f"{name}@{fitted.cell.title}",
            "images": sum(map(len, groups)),
            "seconds_of_passes": round(seconds_of_passes(trial.store) - before, 3),
        }

    product = trial.store.make(Key("transfer", TRANSFER_VERSION, config, inputs), build)
    kept = load_file(str(product.path("scores.safetensors")))
    scores = [Scores(*(kept[f"{i}/{part}"].numpy() for part in PARTS)) for i in range(len(rows))]
    of_folds = [(groups[0][part.normal], groups[1][part.abnormal]) for part in rows]
    return judged_scores(trial, name, protocol, product, scores, of_folds, {})


def _of_fold(states: dict[str, Tensor], number: int) -> dict[str, Tensor]:
    start = f"{number}/"
    return {n.removeprefix(start): t for n, t in states.items() if n.startswith(start)}
