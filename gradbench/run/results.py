"""The results of a run, and the rows that are derived from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import load_file
from scipy.stats import binomtest

from gradbench.backbones.trained_network import TrainedNetwork
from gradbench.challenges.produce import AttackOutcome
from gradbench.data.imageset import ImageSet, Listed, join_notes
from gradbench.data.in_distribution import InDistribution
from gradbench.errors import Faulty, GradbenchError, MissingData
from gradbench.outputs.learned import Lessons
from gradbench.run.context import ImagesWithOutputs, NetworkContext
from gradbench.run.experiment import Cell, Experiment
from gradbench.run.fitting import SCORES
from gradbench.run.measurement import CaseResult, Threshold
from gradbench.run.rows import frame, hole, measured_row, row
from gradbench.statistics.comparison import holm
from gradbench.store import Product
from gradbench.support.on_demand import OnDemand

if TYPE_CHECKING:
    import pandas

WITHOUT_ROWS = ("threshold", "random_split")
"""Roles whose faults leave no hole in a table: the main case of the challenge tells them."""
StateKey = tuple[int, str, str]
"""Seed of the network, title of the challenge fitted on ("" for none), detector."""


@dataclass(frozen=True)
class ChallengeFacts:
    """The facts of one challenge for the network of a seed, whatever detectors make of it.

    Attributes:
        missing: why it cannot be measured, "" where it can.
        attack: numbers of an attack as columns of rows, none for other challenges.
        images: size, fingerprint and provenance of the abnormal images.
        profile: mean squared norm of each parameter tensor, (d,), where detectors read them.
    """

    cell: Cell
    seed: int
    missing: str = ""
    attack: Sequence[Mapping[str, Any]] = ()
    images: Mapping[str, Any] = field(default_factory=dict)
    profile: np.ndarray | None = None


def challenge_facts(context: NetworkContext, cell: Cell) -> ChallengeFacts:
    """Make the images of a challenge and read f for them."""
    attack = ()
    try:
        outcome = context.challenge(cell).attack
        attack = () if outcome is None else attack_numbers(outcome)
        abnormal = context.sides(cell).abnormal
    except (MissingData, Faulty) as reason:
        return ChallengeFacts(cell, context.seed, str(reason), attack)
    images = _image_facts(abnormal.images)
    return ChallengeFacts(cell, context.seed, "", attack, images, _profile(abnormal))


def attack_numbers(attack: AttackOutcome) -> list[dict[str, Any]]:
    """Return counts, success in percent, and the size of the perturbations, as columns of rows.

    Sizes are those of all images and of the successful ones, none of the latter without success.
    """
    attempted, correct, successful = (
        int(each.sum()) for each in (np.ones_like(attack.correct), attack.correct, attack.success)
    )
    rate = 100 * successful / correct if correct else float("nan")
    numbers = [
        ("attempted", attempted, "images", attempted, ""),
        ("correct", correct, "images", attempted, "classified correctly before"),
        ("successful", successful, "images", correct, "of those, taken for another class after"),
        ("attack_success", rate, "percent", correct, "of images classified correctly before"),
    ]
    unit = "pixels in [0, 1]"
    for end, of, rows, count in (
        ("", "images", slice(None), attempted),
        ("_successful", "successful images", attack.success, successful),
    ):
        if count:
            l2, linf = attack.l2[rows].mean(), attack.linf[rows].max()
            numbers.append((f"l2{end}", l2, unit, count, f"mean over {of}"))
            numbers.append((f"linf{end}", linf, unit, count, f"largest of all {of}"))
    return [
        {"metric": metric, "value": float(value), "unit": u, "n_abnormal": count, "note": note}
        for metric, value, u, count, note in numbers
    ]


def _image_facts(images: ImageSet) -> dict[str, Any]:
    return {
        "title": f"{images.name} {images.split}",
        "name": images.name,
        "images": len(images),
        "fingerprint": images.fingerprint,
        "status": images.status,
        "note": images.note,
    }


def _profile(images: ImagesWithOutputs) -> np.ndarray | None:
    norms = next((n for n in images.outputs if n.startswith("squared_norms")), None)
    return None if norms is None else images.outputs[norms].double().mean(0).numpy()


@dataclass
class Results:
    """Everything that a run hands to `report`.

    Scores and fitted states stay in the store and are read when they are asked for, so that a run
    of any number of challenges takes the memory of one.

    Attributes:
        networks: by seed.
        lessons: what outputs of each network learned, by seed.
        accuracy: of the networks on the normal images, by seed, in [0, 1].
        challenges: facts of every challenge and network.
        cases: results of all cases that could be evaluated.
        clean_profiles: mean squared norms of the normal images, see `ChallengeFacts`, by seed.
        faults: the last fault of a detector that was left out somewhere, by its name in rows.
        rows: tidy rows derived from all of it, once the run is finished.
    """

    experiment: Experiment
    images: InDistribution
    networks: dict[int, TrainedNetwork] = field(default_factory=dict)
    lessons: dict[int, Lessons] = field(default_factory=dict)
    accuracy: dict[int, float] = field(default_factory=dict)
    challenges: list[ChallengeFacts] = field(default_factory=list)
    cases: list[CaseResult] = field(default_factory=list)
    clean_profiles: dict[int, np.ndarray | None] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add_network(self, context: NetworkContext, labelled: bool = True) -> None:
        """Add a network, the profile of the clean images, and its accuracy if they have labels."""
        self.networks[context.seed], self.lessons[context.seed] = context.f, context.lessons
        if labelled:
            self.accuracy[context.seed] = context.accuracy
        self.clean_profiles[context.seed] = _profile(context.normal)

    @property
    def hold_out(self) -> str:
        """Size and origin of the hold-out, as a sentence without a full stop."""
        images = self.images
        return images.provenance.describe_hold_out(images.hold_out, images.test)

    def frame(self) -> pandas.DataFrame:
        """Return the rows as a table in their own order."""
        return frame(self.rows)

    @property
    def states(self) -> OnDemand:
        """Tensors of detectors fitted on the first fold, by (seed, challenge, detector).

        The challenge is empty for a detector that sees none.
        """
        states = OnDemand()
        for result in self.cases:
            case = result.case
            if result.state is None:
                continue
            learns = self.experiment.detector(case.method).learns_from_challenges
            # a threshold has the state of the challenge's own case
            roles = ("main", "transfer") if learns else ("main", "threshold")
            key = (result.seed, case.cell.title if learns else "", case.method)
            if case.role in roles and key not in states:
                states.add(key, result.state)
        return states

    @property
    def thresholds(self) -> dict[StateKey, Threshold]:
        """Thresholds of detectors on the hold-out, by the keys of `states`."""
        return {
            (r.seed, r.case.fitted_on.title if r.case.fitted_on else "", r.case.method): r.threshold
            for r in self.cases
            if r.threshold is not None
        }

    @property
    def curves(self) -> dict[int, dict[str, OnDemand]]:
        """Seed -> challenge -> detector -> fold -> (scores of normal, of abnormal images)."""
        curves: dict[int, dict[str, OnDemand]] = {seed: {} for seed in self.networks}
        if self.experiment.task.predicts != "score":
            return curves
        for result in self.cases:
            if result.case.role == "main" and result.scores is not None:
                of_cell = curves[result.seed].setdefault(result.case.cell.title, OnDemand())
                of_cell.add(result.case.title, partial(_kept_scores, result.scores))
        return curves

    @property
    def profiles(self) -> dict[int, dict[str, np.ndarray]]:
        """By seed and set: mean squared norm of each parameter tensor, (d,)."""
        name = self.images.normal.name
        of_clean = [(seed, name, profile) for seed, profile in self.clean_profiles.items()]
        of_cells = [(f.seed, f.images.get("name"), f.profile) for f in self.challenges]
        profiles: dict[int, dict[str, np.ndarray]] = {seed: {} for seed in self.networks}
        for seed, name, profile in of_clean + of_cells:
            if profile is not None:
                profiles[seed][name] = profile
        return profiles

    @property
    def sets(self) -> dict[str, dict[str, Any]]:
        """Size, fingerprint and provenance of every set of images that was measured."""
        clean = self.images
        sets = {"train": _image_facts(clean.train), "hold-out": _image_facts(clean.hold_out)}
        sets[f"{clean.normal.name} {clean.normal.split}"] = _image_facts(clean.normal)
        several = len(self.experiment.seeds) > 1
        for facts in self.challenges:
            if facts.images:
                own = several and facts.images["name"] != self.experiment.dataset.name
                seed = f", seed {facts.seed}" if own else ""
                sets[f"{facts.images['title']}{seed}"] = dict(facts.images)
        hidden = ("title", "name")
        return {t: {k: v for k, v in one.items() if k not in hidden} for t, one in sets.items()}

    def check_measured(self) -> None:
        """Refuse a run in which faults left no number of any detector.

        Raises:
            GradbenchError: with the faults.
        """
        if self.faults and not any(result.estimates for result in self.cases):
            raise GradbenchError("; ".join(dict.fromkeys(self.faults.values())))

    def holm(self, result: CaseResult) -> float:
        """Return the p of a rank test after Holm's correction over the detectors of the network."""
        alike = [
            one
            for one in self.cases
            if one.p is not None and (one.seed, one.case.role) == (result.seed, result.case.role)
        ]
        return float(holm([one.p for one in alike])[alike.index(result)])

    def common(self, seed: int | None) -> dict[str, Any]:
        """Return the columns that all rows of a network share; of all networks for None."""
        settings, backbone = self.experiment.settings, self.experiment.config["backbone"]
        return {
            "experiment": self.experiment.name,
            "backbone": backbone["name"],
            "width": backbone.get("width"),
            "in_dist": self.experiment.dataset.name,
            "train_seed": None if seed is None else self.networks[seed].seed,
            "detector_seed": settings.detector.seed,
            "split_seed": self.experiment.evaluation.seed,
            "challenge_seed": settings.challenge.seed,
        }

    def method_columns(self, name: str) -> dict[str, Any]:
        """Return the columns that tell what a detector saw."""
        detector = self.experiment.detector(name)
        clean_seen = self.images.provenance.describe_clean_seen(detector.clean_seen)
        return {"supervision": detector.supervision, "clean_seen": clean_seen}

    def case_rows(self) -> list[dict[str, Any]]:
        """Return the rows of networks, challenges and cases, see `rows`."""
        rows = [*self._network_rows(), *self._challenge_rows()]
        for result in self.cases:
            rows += self._case_rows(result)
        return list({tuple(one.items()): one for one in rows}.values())  # shared faults once

    def _network_rows(self) -> Iterator[dict[str, Any]]:
        test, provenance = self.images.normal, self.images.provenance
        for seed, accuracy in self.accuracy.items():
            interval = binomtest(round(accuracy * len(test)), len(test)).proportion_ci()
            held = f"hold-out: {self.hold_out}" if provenance.reason else ""
            yield row(
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
                **listed_columns(test.listed),
                unit="percent",
                note=join_notes(f"network: {self.networks[seed].origin}", held),
            )

    def _challenge_rows(self) -> Iterator[dict[str, Any]]:
        for facts in self.challenges:
            cell = facts.cell
            place = {**self.common(facts.seed), "challenge": cell.name, "level": cell.level}
            if facts.missing:
                listed = listed_columns(Listed(cell.listed.count, 0) if cell.listed else None)
                kind = cell.kind
                yield hole(facts.missing, **place, role="main", challenge_set=kind, **listed)
            place |= {"role": "attack", "challenge_set": "adversarial", "source": "generated"}
            for numbers in facts.attack:
                yield row(**place, method=cell.name, fold="all", **numbers)

    def _case_rows(self, result: CaseResult) -> Iterator[dict[str, Any]]:
        case, cell = result.case, result.case.cell
        round_trip = case.role == "round_trip"
        place = {
            **self.common(result.seed),
            "role": case.role,
            "challenge_set": "control" if round_trip else cell.kind,
            "challenge": f"round_trip:{cell.name}" if round_trip else cell.name,
            "level": cell.level,
        }
        if result.fault:
            if case.role not in WITHOUT_ROWS:
                yield hole(result.fault, **place, method="" if result.shared else case.title)
            return
        common = {
            **place,
            "source": result.source,
            "method": case.title,
            **self.method_columns(case.method),
            "protocol": result.protocol,
            **listed_columns(result.listed),
        }
        for number, estimate in enumerate(result.estimates):
            tested = {}
            if result.p is not None and not number:
                p_holm = self.holm(result)
                tested = {"p": result.p, "p_holm": p_holm, "test": "Mann-Whitney over sources"}
            few_noted = case.role != "memorisation"
            columns = {**common, **tested, "fold": "all", "note": result.note}
            yield measured_row(estimate, few_noted, **columns)
        if not result.estimates or len(result.headline.per_fold) == 1:
            return  # a single fold is all of them
        headline = result.headline  # other measures are never compared fold by fold
        for fold, (value, counts) in enumerate(zip(headline.per_fold, result.fold_counts)):
            yield row(
                **common,
                n_normal=counts[0],
                n_abnormal=counts[1],
                fold=fold,
                metric=headline.metric,
                side=headline.side,
                threshold_rule=headline.threshold_rule,
                value=100 * value,
                unit="percent",
            )


def listed_columns(listed: Listed | None) -> dict[str, Any]:
    """Return what is at hand of a published list of images as columns of rows."""
    if listed is None:
        return {}
    return {"n_listed": listed.count, "n_at_hand": listed.at_hand, "matched": listed.matched}


def _kept_scores(product: Product) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the kept scores of the measured images of every fold, (normal, abnormal)."""
    arrays = load_file(str(product.path(SCORES)))
    count = len({name.split("/")[0] for name in arrays})
    return [(arrays[f"{i}/normal"], arrays[f"{i}/abnormal"]) for i in range(count)]
