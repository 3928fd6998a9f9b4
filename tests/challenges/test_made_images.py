"""Gaussian noise, FGSM and identity: what they do to pixels, and what is kept of it."""

import numpy as np
import pytest
import torch
from _dummies import grey, images, network
from torch.nn import functional

from gradbench.backbones.backbone import digest
from gradbench.challenges.attacks.projected import FGSM
from gradbench.challenges.base import CleanBatch
from gradbench.challenges.controls import Identity
from gradbench.challenges.corruptions.noise import GaussianNoise
from gradbench.challenges.produce import ChallengeSetup, produce
from gradbench.data.imageset import digest_pixels, shards, source_ids
from gradbench.errors import GradbenchError
from gradbench.store import Store

STRENGTHS = (0.04, 0.06, 0.08, 0.09, 0.10)


def every(made) -> np.ndarray:
    return made.images[slice(None)]


def noisy(clean, strength, **settings):
    source = ChallengeSetup(GaussianNoise(STRENGTHS), "gaussian_noise", strength, **settings)
    return source.make(clean, np.arange(len(clean)))


@pytest.fixture(scope="module")
def f():
    return network()


def attack(f, epsilon, **settings):
    return ChallengeSetup(
        FGSM(epsilon=epsilon), "fgsm", epsilon, network=f, weights=digest(f), **settings
    )


# identity and zero strength


def test_identity_is_a_copy():
    clean = CleanBatch.from_pixels(
        images(3).images, np.zeros(3, np.int64), source_ids("a", "b", 3), "cpu"
    )
    grey_levels = Identity().perturb(clean, 0.0, 0, None)
    assert torch.equal(grey_levels, clean.grey)
    assert grey_levels.data_ptr() != clean.grey.data_ptr()


# noise


def test_noise_grows_with_the_level_and_has_the_asked_deviation():
    clean = grey(30)
    measured = []
    for strength in STRENGTHS:
        change = noisy(clean, strength, quantise=False).astype(np.float64) - 128 / 255
        measured.append(change.std())
        assert abs(change.mean()) < 4 * strength / np.sqrt(change.size)
        assert change.std() == pytest.approx(strength, rel=4 / np.sqrt(2 * change.size))
    assert measured == sorted(measured)


def test_noise_is_cut_down_to_whole_grey_levels():
    clean = grey(5)
    exact = noisy(clean, 0.1, quantise=False).astype(np.float64) * 255
    whole = noisy(clean, 0.1)
    assert whole.dtype == np.uint8
    assert np.array_equal(whole, np.floor(exact + 1e-4))


# levels


def test_levels():
    noise = GaussianNoise(STRENGTHS)
    assert noise.levels == (1, 2, 3, 4, 5)
    assert [noise.strength_at(level) for level in noise.levels] == list(STRENGTHS)
    for level in (0, 6, None):
        with pytest.raises(GradbenchError, match=f"no level {level}: choose from 1, 2, 3, 4, 5"):
            noise.strength_at(level)


def test_a_challenge_of_one_strength_has_no_level():
    attack = FGSM(epsilon=0.05)
    assert attack.levels == ()
    assert attack.strength_at(None) == 0.05
    with pytest.raises(GradbenchError, match="fgsm has no level 1: choose from no level at all"):
        attack.strength_at(1)


# attacks


@pytest.mark.parametrize("epsilon", [1 / 255, 0.0100, 8 / 255, 0.3])
def test_fgsm_keeps_within_its_budget_and_uses_it(f, epsilon):
    clean = images(40)
    made = attack(f, epsilon).make(clean, np.arange(40)).astype(int)
    change = np.abs(made - clean.images)
    assert change.max() == int(epsilon * 255 + 1e-9)
    inside = (clean.images > epsilon * 255) & (clean.images < 255 - epsilon * 255)
    assert inside.any()
    assert (change[inside] == change.max()).all()


def test_fgsm_follows_the_sign_of_the_slope(f):
    clean = images(10)
    pixels = (torch.from_numpy(clean.images).float() / 255).requires_grad_()
    functional.cross_entropy(f(pixels), torch.from_numpy(clean.labels)).backward()
    expected = clean.images + np.where(pixels.grad.numpy() >= 0, 5, -5)
    made = attack(f, 5 / 255).make(clean, np.arange(10))
    f.zero_grad()
    sure = pixels.grad.abs().numpy() > 1e-7
    assert sure.mean() > 0.9
    assert np.array_equal(made[sure], np.clip(expected, 0, 255)[sure])


# produce


def test_noise_keeps_digests_and_makes_the_pixels_again(store):
    clean = images(1230)
    source = ChallengeSetup(GaussianNoise(STRENGTHS), "noise", 0.1, seed=2)
    made, done = produce(source, clean, store)
    assert done is None
    assert len(store.made) == 2
    assert not list(store.root.rglob("*.safetensors"))
    assert made.digests == [digest_pixels(every(made)[rows]) for rows in shards(1230)]
    assert made.digests != clean.digests
    assert (made.name, made.status, made.note) == ("noise", "generated", "constants: own")
    assert np.array_equal(made.sources, clean.sources)
    assert np.array_equal(made.labels, clean.labels)
    again, _ = produce(source, clean, Store(store.root))
    assert np.array_equal(again.images[np.array([1200, 0])], every(made)[[1200, 0]])


def test_attacked_images_are_kept(store, f):
    clean = images(1010)
    source = attack(f, 0.1)
    made, done = produce(source, clean, store)
    pixels = every(made)
    assert len(list(store.root.rglob("shard.safetensors"))) == 2
    assert made.digests == [digest_pixels(pixels[rows]) for rows in shards(1010)]
    rows = np.array([1005, 3, 999, 1000])
    assert np.array_equal(made.images[rows], pixels[rows])
    assert len(done.l2) == len(done.correct) == 1010


@pytest.mark.parametrize("kind", ["noise", "fgsm"])
def test_a_second_call_makes_nothing(store, f, kind):
    clean = images(30)
    source = (
        attack(f, 0.1) if kind == "fgsm" else ChallengeSetup(GaussianNoise([0.1, 0.2]), "n", 0.1)
    )
    first, _ = produce(source, clean, store)
    again = Store(store.root)
    second, _ = produce(source, clean, again)
    assert again.made == []
    assert len(again.used) == 1
    assert np.array_equal(every(first), every(second))


def test_a_damaged_shard_of_an_attack_is_made_anew(store, f):
    clean = images(20)
    first, done = produce(attack(f, 0.1), clean, store)
    pixels = every(first)
    (shard,) = store.root.rglob("shard.safetensors")
    shard.write_bytes(shard.read_bytes()[:-7])
    again = Store(store.root)
    second, redone = produce(attack(f, 0.1), clean, again)
    assert len(again.made) == 1
    assert np.array_equal(every(second), pixels)
    assert np.array_equal(redone.l2, done.l2)


@pytest.mark.parametrize("kind", ["noise", "fgsm"])
def test_without_the_grid_images_are_floats_and_say_so(store, f, kind):
    clean = images(30)
    if kind == "fgsm":
        source = attack(f, 0.03, quantise=False)
    else:
        source = ChallengeSetup(GaussianNoise([0.1]), "n", 0.1, quantise=False)
    made, _ = produce(source, clean, store)
    pixels = every(made)
    assert pixels.dtype == made.images.dtype == np.float32
    assert made.digests == [digest_pixels(pixels)]
    assert "not rounded" in made.note
    on_grid = np.abs(pixels * 255 - np.round(pixels * 255)) < 1e-3
    assert on_grid.mean() < 0.5


def test_keys_depend_on_what_the_images_depend_on(f):
    clean = images(20)
    other = images(20, seed=1)
    moved = images(20, name="elsewhere")
    noise = GaussianNoise(STRENGTHS)

    def key(source, clean=clean):
        return source.keys(clean)[0].digest

    base = ChallengeSetup(noise, "n", 0.1)
    assert key(base) == key(ChallengeSetup(noise, "another name", 0.1))
    assert key(base) == key(ChallengeSetup(noise, "n", 0.1, network=f, weights="w"))
    changed = [
        key(ChallengeSetup(noise, "n", 0.2)),
        key(ChallengeSetup(noise, "n", 0.1, seed=1)),
        key(ChallengeSetup(noise, "n", 0.1, quantise=False)),
        key(base, other),
        key(base, moved),
    ]
    attacked = attack(f, 0.1)
    relabelled = images(20)
    relabelled.labels[0] = 2
    changed += [
        key(attacked),
        key(attacked, relabelled),
        key(ChallengeSetup(attacked.challenge, "fgsm", 0.1, network=f, weights="w")),
    ]
    assert len({key(base), *changed}) == 1 + len(changed)
