"""What every attack must do: budgets, identity at zero, one answer, a network left as it came."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from _every_attack import ALL, LINF, Only, fit_for, make
from _trained import NAMES, changed, digits, trained

from gradbench.backbones.backbone import Backbone, digest
from gradbench.challenges.attacks.projected import FGSM, PGD, IterLL
from gradbench.challenges.base import CleanBatch
from gradbench.challenges.produce import ChallengeSetup, produce
from gradbench.data.imageset import source_ids
from gradbench.errors import GradbenchError


def setup_of(name, f):
    strength = ALL[name].strength_at(None)
    return ChallengeSetup(ALL[name], name, strength, network=f, weights=digest(f))


every = pytest.mark.parametrize("name", ALL)


@pytest.mark.parametrize("name", LINF)
@pytest.mark.parametrize("quantise", [True, False])
def test_no_pixel_changes_by_more_than_the_budget(name, quantise):
    images, attack = digits(60), LINF[name]
    made = make(attack, images, quantise=quantise).astype(np.float64)
    change = made / (255 if quantise else 1) - images.images / 255
    most = np.abs(change).max((1, 2, 3))
    assert most.max() <= attack.strength_at(None) + (1e-9 if quantise else 1e-6)
    assert most.min() > attack.strength_at(None) - 1.01 / 255 or name == "bim_first_step"


@pytest.mark.parametrize("quantise", [True, False])
def test_the_l2_budget_is_kept(quantise):
    images = digits(60)
    made = make(ALL["pgd_l2"], images, quantise=quantise).astype(np.float64)
    change = made / (255 if quantise else 1) - images.images / 255
    length = np.sqrt((change**2).sum((1, 2, 3)))
    assert length.max() <= 0.8 + (1e-9 if quantise else 1e-5)
    assert np.median(length) > 0.7


@every
@pytest.mark.parametrize("quantise", [True, False])
def test_nothing_happens_at_strength_zero(name, quantise):
    f, images = fit_for(name)
    made = make(ALL[name], images, f, strength=0.0, quantise=quantise)
    expected = images.images if quantise else images.images.astype(np.float32) / np.float32(255)
    assert np.array_equal(made, expected)


@every
def test_images_do_change_and_most_are_mistaken(name, store):
    f, images = fit_for(name)
    made, done = produce(setup_of(name, f), images, store)
    assert done.correct.mean() > 0.8
    least = 0.3 if name in ("fgsm", "bim_first_step", "iterll", "pgd_l2") else 0.7
    assert done.success.sum() / done.correct.sum() > least
    pixels = made.images[slice(None)]
    change = (pixels.astype(np.float64) - images.images) / 255
    np.testing.assert_allclose(done.l2, np.sqrt((change**2).sum((1, 2, 3))), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(done.linf, np.abs(change).max((1, 2, 3)), rtol=1e-5, atol=1e-7)
    with torch.no_grad():
        named = f(torch.from_numpy(pixels).float() / 255).argmax(1).numpy()
    assert np.array_equal(done.success, done.correct & (named != images.labels))


@pytest.mark.parametrize("name", ["cw", "cw_fixed", "semantic"])
def test_images_that_are_mistaken_already_stay_as_they_are(name):
    f, images = fit_for(name)
    wrong = replace(images, labels=(images.labels + 1) % len(f.classes))
    with torch.no_grad():
        named = f(torch.from_numpy(images.images).float() / 255).argmax(1).numpy()
    already = named != wrong.labels
    assert already.sum() > 40
    made = make(ALL[name], wrong, f)
    assert np.array_equal(made[already], images.images[already])


@every
def test_a_second_call_gives_the_same_bits_and_no_state_is_left(name):
    f, images = fit_for(name)
    state = dict(vars(ALL[name]))
    first = make(ALL[name], images, f)
    make(ALL[name], digits(7) if name != "semantic" else images.select(np.arange(7)), f)
    assert np.array_equal(make(ALL[name], images, f), first)
    assert vars(ALL[name]) == state


@pytest.mark.parametrize("name", ["pgd", "cw", "semantic"])
def test_shards_may_be_made_in_any_order(name, store, tmp_path, monkeypatch):
    for room in ("gradbench.challenges.produce.shards", "gradbench.data.imageset.shards"):
        monkeypatch.setattr(room, lambda n: [slice(i, min(i + 20, n)) for i in range(0, n, 20)])
    f, images = fit_for(name)
    source = setup_of(name, f)
    made, done = produce(source, images, store)
    last = source.make(images, np.arange(40, 60))
    first = source.make(images, np.arange(20))
    pixels = made.images[slice(None)]
    assert np.array_equal(pixels[40:], last)
    assert np.array_equal(pixels[:20], first)
    assert len(store.made) == 3
    assert len(done.l2) == 60


@every
def test_the_network_is_left_as_it_came(name):
    f, images = fit_for(name)
    f = changed() if f is trained() else f
    marker = f.register_forward_hook(lambda *_: None)
    for parameter in list(f.parameters())[::2]:
        parameter.requires_grad_(False)
    f.train()
    before = digest(f)
    modes = [m.training for m in f.modules()]
    flags = [p.requires_grad for p in f.parameters()]
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in f.modules()]
    try:
        make(ALL[name], images.select(np.arange(10)), f)
        assert digest(f) == before
        assert [m.training for m in f.modules()] == modes
        assert [p.requires_grad for p in f.parameters()] == flags
        assert all(p.grad is None for p in f.parameters())
        assert [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in f.modules()] == hooks
    finally:
        marker.remove()
        f.requires_grad_(True).eval()


def test_a_network_that_fails_in_an_attack_is_left_as_it_came_too():
    f = changed().train()

    def fail(*_):
        raise RuntimeError("no forward pass")

    hook = f.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="no forward pass"):
        make(FGSM(), digits(4), f)
    hook.remove()
    assert f.training
    assert all(p.requires_grad for p in f.parameters())
    f.eval()


@pytest.mark.parametrize("name", ["fgsm", "pgd_l2", "cw"])
def test_logits_that_are_all_negative_change_nothing(name):
    # ours never compare with a logit of 0 that is not there; a shift of all logits is no change
    usual, shifted = (make(ALL[name], digits(60), f) for f in (trained(), changed(shift=-64.0)))
    assert (usual != shifted).mean() < 0.02


@pytest.mark.parametrize("name", ["fgsm", "pgd_l2", "iterll"])
def test_a_saturated_network_gives_gradients_still(name):
    # where softmax rounds to 1 in float32 the cross entropy has no gradient; the log-odds have
    usual, saturated = (make(ALL[name], digits(60), f) for f in (trained(), changed(1000.0)))
    success = [
        (changed()(torch.from_numpy(m).float() / 255).argmax(1).numpy() != digits(60).labels).mean()
        for m in (usual, saturated)
    ]
    assert success[1] > 0.8 * success[0]


def test_a_network_of_one_class_is_refused():
    f = Backbone(Only(torch.nn.Flatten()), [0.5], [0.5], ("only",), (1, 8, 8))
    with pytest.raises(GradbenchError, match=r"needs at least two classes.*network has 1"):
        make(FGSM(), digits(4), f)


def test_restarts_keep_what_succeeded_and_try_the_rest_again():
    images, labels = digits(60), digits(60).labels
    attacks = [PGD(epsilon=0.04, step=0.02, steps=3, restarts=n) for n in (1, 5)]
    once, often = (make(attack, images) for attack in attacks)
    named = [trained()(torch.from_numpy(m).float() / 255).argmax(1).numpy() for m in (once, often)]
    done = named[0] != labels
    assert 0 < done.sum() < 60
    assert np.array_equal(once[done], often[done])
    assert not np.array_equal(once, often)
    assert (named[1] != labels).sum() >= done.sum()


def test_random_starts_are_drawn_by_seed_and_image():
    images = digits(30)
    attack = PGD(epsilon=0.1, step=0.001, steps=1)
    first, other = make(attack, images, seed=1), make(attack, images, seed=2)
    assert (first != other).mean() > 0.5
    batch = CleanBatch.from_pixels(
        images.images, images.labels, images.sources, "cpu", quantise=False
    )
    start = attack.perturb(batch, 0.1, 1, trained()) - batch.grey
    assert start.std() == pytest.approx(255 * 0.1 / 3**0.5, rel=0.05)
    mirrored = images.select(np.arange(30)[::-1])
    assert (make(attack, mirrored, seed=1)[::-1] == first).mean() > 0.999


def test_starts_in_l2_fill_the_ball():
    count = 400
    pixels = np.full((count, 1, 2, 1), 128, np.uint8)
    batch = CleanBatch.from_pixels(
        pixels, np.zeros(count, np.int64), source_ids("a", "b", count), "cpu"
    )
    attack = PGD(norm="l2", epsilon=0.1, step=1e-7, steps=1)
    flat = Backbone(Only(torch.nn.Flatten()), [0.5], [0.5], ("a", "b"), (1, 2, 1))
    away = (attack.perturb(batch, 0.1, 0, flat) - batch.grey).flatten(1).norm(dim=1) / 25.5
    assert away.max() <= 1 + 1e-5
    # in two dimensions the share within radius r is r squared
    assert (away < 0.5).float().mean() == pytest.approx(0.25, abs=0.07)


def test_iterll_goes_to_the_least_likely_class():
    images = digits(60)
    made = make(IterLL(epsilon=0.5, step=0.02, steps=40), images)
    logits = [trained()(torch.from_numpy(p).float() / 255) for p in (images.images, made)]
    least = logits[0].argmin(1)
    assert (logits[1].argmax(1) == least).float().mean() > 0.5


class Hidden(torch.nn.Module):
    """Autograd sees the weights at work, not the pixels."""

    feature_layers = ()

    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(64, 10)

    def forward(self, x):
        return self.fc(x.detach().flatten(1))


@pytest.mark.parametrize("name", ["fgsm", "cw"])
def test_pixels_that_autograd_does_not_see_are_refused(name):
    images = digits(3)
    f = Backbone(Hidden(), [0.5], [0.5], NAMES, (1, 8, 8)).eval()
    said = f(torch.from_numpy(images.images).float() / 255).argmax(1).numpy()
    images = replace(images, labels=said)  # what is wrong from the beginning is not attacked
    for parameters in (True, False):
        f.requires_grad_(parameters)
        with pytest.raises(GradbenchError, match=r"does not see how.*depend on the pixels"):
            make(ALL[name], images, f)
