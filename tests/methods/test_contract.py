"""What every detector of configs/detector/ must keep, whichever it is."""

import re
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from _dummies import images, network
from torch import nn

from gradbench.backbones.recipe import Recipe
from gradbench.backbones.training import train
from gradbench.backbones.workers import Worker
from gradbench.config import group_files, load_member
from gradbench.data.imageset import ImageSet, source_ids
from gradbench.errors import GradbenchError
from gradbench.methods.base import (
    BANK_EXTRAS,
    SUPERVISION,
    Detector,
    Samples,
    learned_among,
    outputs_among,
)
from gradbench.methods.tuning import rank_auroc
from gradbench.outputs.catalogue import built_in
from gradbench.outputs.layers import head_tensors
from gradbench.outputs.learned import Lessons
from gradbench.outputs.read import read_outputs
from gradbench.support.instantiate import instantiate

NAMES = [name for name in group_files("detector") if "members" not in load_member("detector", name)]
each = pytest.mark.parametrize("name", NAMES)


def build(name, **changes) -> Detector:
    return instantiate("detector", name, load_member("detector", name) | changes)


BLIND = [name for name in NAMES if build(name).supervision == "none"]
RAW = ("gradient_uncertainty",)
"""Scores whose sign is the paper's and no fit's: here larger gradients are normal."""
TRAINED = [
    name for name in NAMES if build(name).supervision == "training" and build(name).half is not None
]


@pytest.fixture(scope="module")
def members(tmp_path_factory):
    """Two small networks that know left, right and top halves; the first has dropout."""
    recipe = Recipe(epochs=6, batch=16, lr=0.05, pad=0, flip=False, precision="float32")
    backbones = [network(seed, width=8) for seed in (0, 1)]
    for seed, backbone in enumerate(backbones):
        work = tmp_path_factory.mktemp("training")
        train(backbone, images(240, seed=9), recipe, seed, work, Worker(torch.device("cpu")))
    backbones[0].network.stage3 = nn.Dropout(0.3).eval()  # in place of an identity
    return backbones


@pytest.fixture(scope="module")
def f(members):
    """The network that detectors read."""
    return members[0]


@cache
def shapeless(count: int, seed: int) -> ImageSet:
    """Return images without a bright half, which belong to no class."""
    pixels = np.random.default_rng(seed).integers(60, 140, (count, 1, 8, 8)).astype(np.uint8)
    return ImageSet(
        "shapeless", "test", pixels, np.zeros(count, np.int64), source_ids("shapeless", "t", count)
    )


@pytest.fixture(scope="module")
def parts(f, members):
    """Return a function from a detector to (bank, fit, choose, normal, abnormal) outputs."""

    def pixels_of(data):
        return torch.from_numpy(data.images).float() / 255

    lessons = Lessons(f, "", images(240, seed=9), None)

    def taught(names):
        own = built_in().of_network(f, names)
        return lessons.taught([one.of_members([*zip(members, "ab")]) for one in own])[0]

    def outputs(data, names):
        found = read_outputs(f, pixels_of(data), taught(outputs_among(names)))
        given = head_tensors(f) | {"labels": torch.from_numpy(data.labels)}
        learned = learned_among(names)
        given |= lessons.tensors(learned, taught(learned.values()))
        return found | {name: given[name] for name in names if name in given}

    def samples(seed, names):
        sides = images(150, seed), shapeless(90, seed)
        pixels = torch.cat([pixels_of(side) for side in sides])
        return replace(
            Samples.join(*(outputs(side, names) for side in sides)),
            order=torch.randperm(240, generator=torch.Generator().manual_seed(seed)),
            passes=lambda what, rows: what(f, pixels[rows]),
        )

    @cache
    def of(reads, bank_reads, hold_out_reads, supervised):
        bank = outputs(images(240, seed=9), bank_reads)
        if supervised and hold_out_reads:
            aside = outputs(images(120, seed=8), hold_out_reads)
            bank |= {f"hold_out/{name}": values for name, values in aside.items()}
        fits = {*reads, *hold_out_reads}
        return bank, *(samples(seed, fits) for seed in (1, 2))

    def of_detector(detector):
        """Return what it is fitted on, and what it scores: once fitted also its own passes."""
        reads = tuple(detector.reads)
        rest = tuple(detector.bank_reads), tuple(detector.hold_out_reads)
        sides = [
            outputs(side, reads)
            | {name: what(f, pixels_of(side)) for name, what in detector.perturbed_passes.items()}
            for side in (images(150, 3), shapeless(90, 3))
        ]
        return *of(reads, *rest, detector.learns_from_challenges), *sides

    return of_detector


_FITTED: dict[str, Detector] = {}


def fitted_once(name, parts) -> Detector:
    """Return a detector that tests share which only read it."""
    if name not in _FITTED:
        detector = build(name)
        bank, fit, choose, *_ = parts(detector)
        _FITTED[name] = detector.fit(bank, fit, choose, 0)
    return _FITTED[name]


@each
def test_declarations(name):
    detector = build(name)
    assert isinstance(detector, Detector)
    assert detector.supervision in SUPERVISION
    assert detector.learns_from_challenges == (detector.supervision in ("tuning", "training"))
    assert detector.clean_seen
    assert bool(detector.synthetic) == (detector.supervision == "synthetic")
    assert detector.version >= 1
    assert detector.reads or detector.perturbed_passes
    for output in detector.reads:
        built_in().find(output)
    for output in outputs_among({*detector.bank_reads, *detector.hold_out_reads}):
        built_in().find(output)
    for output in learned_among(detector.bank_reads).values():
        assert built_in().find(output).learns_from
        assert "labels" in detector.bank_reads
    assert {*detector.hold_out_reads}.intersection(BANK_EXTRAS) <= {"labels"}
    assert len(detector.info.title) > 10
    assert re.search(r"\b(19|20)\d\d$", detector.info.venue)
    assert detector.info.url.startswith("https://")
    assert detector.info.code == "" or detector.info.code.startswith("https://")
    assert load_member("detector", name)["description"]


@each
def test_scores_have_one_finite_number_per_image(name, parts):
    detector = fitted_once(name, parts)
    *_, normal, abnormal = parts(detector)
    for side, count in ((normal, 150), (abnormal, 90)):
        scores = detector.score(side)
        assert scores.shape == (count,)
        assert scores.dtype in (torch.float32, torch.float64)
        assert not scores.requires_grad
        assert torch.isfinite(scores).all()
        assert len(scores.unique()) > 1


@pytest.mark.parametrize("name", [name for name in NAMES if name not in RAW])
def test_higher_is_more_abnormal(name, parts):
    detector = fitted_once(name, parts)
    *_, normal, abnormal = parts(detector)
    scores = torch.cat([detector.score(normal), detector.score(abnormal)]).numpy()
    assert rank_auroc(scores, np.arange(240) >= 150) > 0.9


@each
def test_scoring_does_not_depend_on_the_batch(name, parts):
    detector = fitted_once(name, parts)
    *_, normal, _ = parts(detector)
    whole = detector.score(normal)
    assert torch.equal(detector.score(normal), whole)
    for size in (1, 7):
        rows = torch.arange(21).split(size)
        pieces = torch.cat([detector.score({k: v[r] for k, v in normal.items()}) for r in rows])
        torch.testing.assert_close(pieces, whole[:21], rtol=1e-5, atol=1e-5)
    order = torch.randperm(150)
    turned = detector.score({k: v[order] for k, v in normal.items()})
    torch.testing.assert_close(turned, whole[order], rtol=1e-5, atol=1e-5)


@each
def test_scoring_changes_neither_outputs_nor_state(name, parts):
    detector = fitted_once(name, parts)
    *_, normal, _ = parts(detector)
    before = {k: v.clone() for k, v in normal.items()}
    state = {k: v.clone() for k, v in detector.state().items()}
    detector.score(normal)
    assert all(torch.equal(before[k], normal[k]) for k in normal)
    assert all(torch.equal(state[k], v) for k, v in detector.state().items())


@each
def test_a_fit_depends_on_images_and_seed_alone_and_leaves_the_random_state(name, parts):
    detector = build(name)
    bank, fit, choose, *_ = parts(detector)
    before = torch.get_rng_state()
    assert detector.fit(bank, choose, fit, 3) is detector
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(7)
    detector.fit(bank, fit, choose, 0)
    *_, normal, _ = parts(detector)
    assert torch.equal(detector.score(normal), fitted_once(name, parts).score(normal))


@each
def test_state_can_be_kept_and_taken_over(name, parts, tmp_path):
    from safetensors.torch import load_file, save_file

    assert not any(tensor.numel() for tensor in build(name).state().values())
    detector = fitted_once(name, parts)
    *_, normal, _ = parts(detector)
    state = {k: v.contiguous() for k, v in detector.state().items()}
    if detector.learns_from_challenges:
        assert state
    save_file(state, str(tmp_path / "state.safetensors"))
    other = build(name).load(load_file(str(tmp_path / "state.safetensors")))
    assert torch.equal(other.score(normal), detector.score(normal))


@pytest.mark.parametrize("name", BLIND)
def test_without_supervision_abnormal_samples_are_not_looked_at(name, parts):
    detector = build(name)
    bank, fit, choose, *_ = parts(detector)

    def blinded(samples):
        hidden = {k: v.clone() for k, v in samples.outputs.items()}
        for values in hidden.values():
            values[samples.abnormal] = float("nan") if values.is_floating_point() else -1
        return Samples(hidden, samples.abnormal)

    blind = build(name).fit(bank, blinded(fit), blinded(choose), 0)
    *_, normal, _ = parts(blind)
    assert torch.equal(blind.score(normal), fitted_once(name, parts).score(normal))


@each
def test_unknown_settings_are_refused(name):
    with pytest.raises(GradbenchError, match=f"no setting of detector {name} named 'colour'"):
        build(name, colour="red")


@pytest.mark.parametrize("name", TRAINED)
def test_fifty_fifty_point_lies_among_the_scores_of_a_supervised_detector(name, parts):
    detector = fitted_once(name, parts)
    *_, normal, abnormal = parts(detector)
    wrong = (detector.score(normal) > detector.half).double().mean()
    missed = (detector.score(abnormal) <= detector.half).double().mean()
    assert (wrong + missed) / 2 < 0.15
