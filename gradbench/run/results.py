"""What a run found: rows, curves, profiles, networks and fitted detectors, gathered on the way."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import binomtest

from gradbench.backbones.trained_network import TrainedNetwork
from gradbench.challenges.produce import AttackOutcome
from gradbench.data.imageset import ImageSet, join_notes
from gradbench.data.in_distribution import InDistribution
from gradbench.run.attack_outcomes import deeds
from gradbench.run.experiment import Cell, Experiment, protocol_name
from gradbench.run.judging import Judged, kept_scores, kept_state
from gradbench.run.rows import frame, hole, measured_row, row
from gradbench.run.synthetic import relation
from gradbench.run.trial import Seen
from gradbench.run.verdict import CellName, Threshold, Verdict
from gradbench.statistics.bootstrap import BootstrapSamples
from gradbench.statistics.comparison import holm
from gradbench.statistics.controls import LEVEL
from gradbench.support.on_demand import OnDemand
from gradbench.support.progress import say

if TYPE_CHECKING:
    import pandas

SIDES = ("normal", "abnormal")
Curves = dict[str, OnDemand]
"""Challenge -> detector -> fold -> (scores of normal, scores of abnormal images), on demand."""


@dataclass
class Results:
    """Everything that a run hands to `reporting`.

    What grows with the images of a challenge stays on disk, so that a run of any number of
    challenges takes the memory of one.

    Attributes:
        experiment: what was asked for.
        images: the clean images.
        rows: tidy rows, see `evaluation.rows`.
        networks: by seed.
        accuracy: of the networks on the normal images, by seed, in [0, 1].
        curves: by seed.
        profiles: by seed and set: mean squared norm of each parameter tensor, (d,).
        states: fitted on the first fold: (seed, challenge, detector) -> tensors; the challenge is
            empty where none was seen.
        thresholds: of detectors on the hold-out, by the same keys, see `thresholds`.
        verdicts: of the main table: (challenge_set, challenge, level) -> detector -> seed.
        sets: fingerprint, size and provenance of every set of images that was looked at.
        faults: the last fault of a detector from outside that was left out somewhere, by the name
            of its rows.
    """

    experiment: Experiment
    images: InDistribution
    rows: list[dict[str, Any]] = field(default_factory=list)
    networks: dict[int, TrainedNetwork] = field(default_factory=dict)
    accuracy: dict[int, float] = field(default_factory=dict)
    curves: dict[int, Curves] = field(default_factory=dict)
    profiles: dict[int, dict[str, np.ndarray]] = field(default_factory=dict)
    states: OnDemand = field(default_factory=OnDemand)
    thresholds: dict[tuple[int, str, str], Threshold] = field(default_factory=dict)
    verdicts: dict[CellName, dict[str, dict[int, Verdict]]] = field(default_factory=dict)
    sets: dict[str, dict[str, Any]] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)

    @property
    def hold_out(self) -> str:
        """What is known of the hold-out, as a sentence without a full stop."""
        return self.images.provenance.describe_hold_out(self.images.hold_out, self.images.test)

    def frame(self) -> pandas.DataFrame:
        """Return the rows as a table in their own order."""
        return frame(self.rows)

    def add_network(self, seed: int, f: TrainedNetwork, accuracy: float) -> None:
        """Note a network and its accuracy on the clean test images that are measured."""
        self.networks[seed], self.accuracy[seed] = f, accuracy
        self.curves[seed], self.profiles[seed] = {}, {}
        test, known = self.images.normal, self.images.provenance
        right = round(accuracy * len(test))
        held = f"hold-out: {self.hold_out}" if known.reason else ""
        interval = binomtest(right, len(test)).proportion_ci()
        self.rows.append(
            row(
                **self.common(seed),
                role="network",
                challenge_set="clean",
                challenge=test.name,
                source=test.status,
                method="f",
                fold="all",
                metric="accuracy",
                value=100 * accuracy,
                lo=100 * interval.low,
                hi=100 * interval.high,
                n_normal=len(test),
                unit="percent",
                note=join_notes(f"network: {f.origin}", held),
            )
        )
        self._note_set("train", self.images.train)
        self._note_set("hold-out", self.images.hold_out)

    def add_outputs(self, seed: int, seen: Seen) -> None:
        """Note a set of images and its gradient profile."""
        images, outputs = seen.images, seen.outputs
        several = len(self.experiment.seeds) > 1 and images.name != self.experiment.dataset.name
        title = f"{images.name} {images.split}" + (f", seed {seed}" if several else "")
        self._note_set(title, images)
        norms = next((n for n in outputs if n.startswith("squared_norms")), None)
        if norms is not None:
            self.profiles[seed][images.name] = outputs[norms].double().mean(0).numpy()

    def add(
        self,
        seed: int,
        cell: Cell,
        images: ImageSet,
        method: str,
        judged: Judged,
        kind: str | None = None,
        note: str = "",
        role: str = "main",
        tested: Mapping[str, Any] | None = None,
    ) -> None:
        """Add the rows of a detector on a challenge; `NAME@CHALLENGE` was fitted elsewhere.

        `tested` goes into the row of AUROC: the columns `p`, `p_holm` and `test`.
        """
        name = method.partition("@")[0]
        detector = self.experiment.detector(name)
        common = self.common(seed) | {
            "role": role,
            "challenge_set": kind or cell.challenge.kind,
            "challenge": cell.name,
            "level": cell.level,
            "source": images.status,
            "method": method,
            "supervision": detector.supervision,
            "clean_seen": self.images.provenance.describe_clean_seen(detector.clean_seen),
            "protocol": judged.protocol,
        }
        related = relation(self.experiment.own_cells(name), cell)
        related = related and f"{method}: {related}"
        note = join_notes(images.note, note, related)
        for measured in judged.measured:
            more = tested if tested and measured.metric == "auroc" else {}
            self.rows.append(measured_row(measured, **common, **more, fold="all", note=note))
            if len(measured.per_fold) == 1 or measured.metric != "auroc":
                continue  # a single fold is all of them; others than AUROC are never compared
            for fold, value in enumerate(measured.per_fold):
                self.rows.append(
                    row(
                        **common,
                        n_normal=len(judged.scores[fold].normal),
                        n_abnormal=len(judged.scores[fold].abnormal),
                        fold=fold,
                        metric=measured.metric,
                        side=measured.side,
                        threshold_rule=measured.threshold_rule,
                        value=100 * value,
                        unit="percent",
                    )
                )
        if kind is None and judged.protocol == protocol_name(self.experiment.protocol):
            of_cell = self.curves[seed].setdefault(cell.title, OnDemand())
            of_cell.add(method, partial(kept_scores, judged.product))
            if judged.state and detector.learns_from_challenges:
                read = partial(kept_state, judged.product)
                self.states.add((seed, cell.title, method), read)
            elif judged.state:
                self.states.add((seed, "", method), partial(dict, judged.state))

    def add_verdict(
        self, seed: int, cell: Cell, method: str, judged: Judged, sampled: BootstrapSamples
    ) -> None:
        """Note what is compared and averaged at the end, see `summary`."""
        counts = (sum(len(getattr(s, side)) for s in judged.scores) for side in SIDES)
        (auroc,) = (m for m in judged.measured if m.metric == "auroc")
        of_cell = self.verdicts.setdefault((cell.challenge.kind, cell.name, cell.level), {})
        related = relation(self.experiment.own_cells(method.partition("@")[0]), cell)
        interval, folds = (auroc.lo, auroc.hi), _digest(judged.groups)
        verdict = Verdict(sampled, tuple(counts), interval, folds, related)
        of_cell.setdefault(method, {})[seed] = verdict

    def add_attack(self, seed: int, cell: Cell, attack: AttackOutcome) -> None:
        """Add what an attack did: counts, its success and the size of its perturbations."""
        for metric, value, unit, n, note in deeds(attack):
            self.rows.append(
                row(
                    **self.common(seed),
                    role="attack",
                    challenge_set="adversarial",
                    challenge=cell.name,
                    level=cell.level,
                    source="generated",
                    method=cell.name,
                    fold="all",
                    metric=metric,
                    value=float(value),
                    n_abnormal=n,
                    unit=unit,
                    note=note,
                )
            )

    def add_random_labels(
        self,
        seed: int,
        cell: Cell,
        images: ImageSet,
        judged: Mapping[str, Judged],
        p_values: Sequence[float],
    ) -> None:
        """Add the control with arbitrary labels, and warn where a detector beats chance."""
        for (name, judgement), p, corrected in zip(judged.items(), p_values, holm(p_values)):
            tested = {"p": p, "p_holm": corrected, "test": "Mann-Whitney over sources"}
            control = {"kind": "control", "role": "random_labels", "tested": tested}
            self.add(seed, cell, images, name, judgement, **control)
            if corrected < LEVEL:
                say(
                    f"warning: {name} tells clean images with arbitrary labels apart "
                    f"(p = {p:.3g}, {corrected:.3g} after Holm); its other numbers are in doubt"
                )

    def add_memorisation(
        self,
        seed: int,
        cell: Cell,
        method: str,
        value: float,
        counts: tuple[int, int],
        note: str,
    ) -> None:
        """Add the AUROC (a fraction) of a detector for training images against the hold-out."""
        detector = self.experiment.detector(method)
        self.rows.append(
            row(
                **self.common(seed),
                role="memorisation",
                challenge_set="control",
                challenge=cell.name,
                method=method,
                supervision=detector.supervision,
                clean_seen=self.images.provenance.describe_clean_seen(detector.clean_seen),
                protocol=protocol_name(self.experiment.protocol),
                fold="all",
                metric="auroc",
                value=100 * value,
                n_normal=counts[0],
                n_abnormal=counts[1],
                unit="percent",
                note=note,
            )
        )

    def add_hole(
        self,
        seed: int,
        cell: Cell,
        reason: str,
        kind: str | None = None,
        method: str = "",
        role: str = "main",
    ) -> None:
        """Add a row that says why a challenge was not measured, by any detector or by one."""
        self.rows.append(
            hole(
                reason,
                **self.common(seed),
                role=role,
                challenge_set=kind or cell.challenge.kind,
                challenge=cell.name,
                level=cell.level,
                method=method,
            )
        )

    def common(self, seed: int | None) -> dict[str, Any]:
        """Return what all rows of a network share; of all networks for None."""
        config = self.experiment.config
        return {
            "experiment": self.experiment.name,
            "backbone": config["backbone"]["name"],
            "width": config["backbone"].get("width"),
            "in_dist": self.experiment.dataset.name,
            "train_seed": None if seed is None else self.networks[seed].seed,
            "detector_seed": config["detector"]["seed"],
            "split_seed": config["evaluation"]["seed"],
            "challenge_seed": config["challenge"]["seed"],
        }

    def _note_set(self, title: str, images: ImageSet) -> None:
        self.sets[title] = {
            "images": len(images),
            "fingerprint": images.fingerprint,
            "status": images.status,
            "note": images.note,
        }


def _digest(folds: Sequence[tuple[np.ndarray, np.ndarray]]) -> str:
    """Return a digest of the groups of all measured images, fold by fold and side by side."""
    found = hashlib.sha256()
    for groups in (side for fold in folds for side in fold):
        found.update("\n".join([*map(str, groups), ""]).encode() + b"\0")
    return found.hexdigest()
