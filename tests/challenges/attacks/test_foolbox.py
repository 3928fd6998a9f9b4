"""The attacks beside those of foolbox, on the same network, images and budgets."""

import numpy as np
import pytest
import torch
from _trained import changed, digits, trained

from gradbench.challenges.attacks.cw import CW
from gradbench.challenges.attacks.projected import BIM, FGSM, PGD, IterLL
from gradbench.challenges.base import CleanBatch

foolbox = pytest.importorskip("foolbox")
IMAGES = digits(100)
PIXELS = torch.from_numpy(IMAGES.images).float() / 255
LABELS = torch.from_numpy(IMAGES.labels)


def ours(attack, f=None):
    """Return attacked pixels in [0, 1], not rounded to the grid."""
    batch = CleanBatch.from_pixels(
        IMAGES.images, IMAGES.labels, IMAGES.sources, "cpu", quantise=False
    )
    return attack.perturb(batch, attack.strength_at(None), 0, f or trained()) / 255


def theirs(attack, epsilon, f=None, criterion=None):
    model = foolbox.PyTorchModel((f or trained()).eval(), bounds=(0, 1), device="cpu")
    with torch.enable_grad():
        return attack(model, PIXELS, LABELS if criterion is None else criterion,
                      epsilons=epsilon)[1].detach()  # fmt: skip


def mistaken(pixels, f=None) -> np.ndarray:
    with torch.no_grad():
        return ((f or trained())(pixels).argmax(1) != LABELS).numpy()


def lengths(pixels) -> np.ndarray:
    return (pixels - PIXELS).flatten(1).norm(dim=1).numpy()


@pytest.mark.parametrize("epsilon", [0.02, 0.1])
def test_fgsm_is_the_same(epsilon):
    own = ours(FGSM(epsilon=epsilon))
    other = theirs(foolbox.attacks.LinfFastGradientAttack(), epsilon)
    assert 0.1 < mistaken(own).mean() < 1
    assert np.array_equal(mistaken(own), mistaken(other))
    assert ((own - other).abs() > 1e-5).float().mean() < 1e-3


@pytest.mark.parametrize("epsilon", [0.02, 0.05])
def test_bim_mistakes_the_same_images(epsilon):
    own = ours(BIM(epsilon=epsilon, step=epsilon / 4, steps=10))
    attack = foolbox.attacks.LinfBasicIterativeAttack(
        abs_stepsize=epsilon / 4, steps=10, random_start=False
    )
    other = theirs(attack, epsilon)
    assert 0.1 < mistaken(own).mean() < 1
    assert np.array_equal(mistaken(own), mistaken(other))


def test_the_least_likely_class_is_the_same_target():
    epsilon, steps = 0.15, 15
    own = ours(IterLL(epsilon=epsilon, step=0.02, steps=steps))
    with torch.no_grad():
        least = trained()(PIXELS).argmin(1)
    attack = foolbox.attacks.LinfBasicIterativeAttack(
        abs_stepsize=0.02, steps=steps, random_start=False
    )
    other = theirs(attack, epsilon, criterion=foolbox.criteria.TargetedMisclassification(least))
    reached = [(trained()(p).argmax(1) == least).float().mean() for p in (own, other)]
    assert 0.1 < reached[0] < 1
    assert abs(reached[0] - reached[1]) <= 0.02
    assert (mistaken(own) != mistaken(other)).mean() <= 0.02


@pytest.mark.parametrize(
    ("norm", "epsilon"), [("linf", 0.03), ("linf", 0.06), ("l2", 0.2), ("l2", 0.4)]
)
def test_pgd_is_within_noise(norm, epsilon):
    own = mistaken(ours(PGD(norm=norm, epsilon=epsilon, step=epsilon / 4, steps=10)))
    kind = {"linf": foolbox.attacks.LinfPGD, "l2": foolbox.attacks.L2PGD}[norm]
    rates = []
    for seed in range(3):
        torch.manual_seed(seed)
        attack = kind(abs_stepsize=epsilon / 4, steps=10, random_start=True)
        rates.append(mistaken(theirs(attack, epsilon)).mean())
    assert 0.1 < own.mean() < 1
    assert min(rates) - 0.03 <= own.mean() <= max(rates) + 0.03


def test_cw_with_fixed_c_goes_as_far():
    own = ours(CW(constant=1.0, binary_steps=1, steps=100, rate=0.01, early_stop=False))
    attack = foolbox.attacks.L2CarliniWagnerAttack(
        binary_search_steps=1, steps=100, stepsize=0.01, initial_const=1.0, abort_early=False
    )
    other = theirs(attack, None)
    assert np.array_equal(mistaken(own), mistaken(other))
    both = mistaken(own) & ~mistaken(PIXELS)
    assert both.sum() > 20
    assert lengths(own)[both].mean() == pytest.approx(lengths(other)[both].mean(), rel=0.01)


@pytest.mark.slow
def test_cw_with_searched_c_finds_all_and_goes_no_farther():
    # both have 240 steps; ours begins anew for no c
    own = ours(CW(constant=0.1, binary_steps=6, steps=40, early_stop=False))
    attack = foolbox.attacks.L2CarliniWagnerAttack(
        binary_search_steps=6, steps=40, stepsize=0.01, initial_const=0.1, abort_early=False
    )
    other = theirs(attack, None)
    assert mistaken(own).all()
    assert mistaken(other).all()
    right = ~mistaken(PIXELS)
    assert lengths(own)[right].mean() == pytest.approx(lengths(other)[right].mean(), rel=0.05)


def test_foolbox_loses_its_way_where_softmax_saturates_and_fgsm_does_not():
    saturated = changed(1000.0)
    own = mistaken(ours(FGSM(epsilon=0.1), saturated))
    usual = mistaken(ours(FGSM(epsilon=0.1)))
    other = mistaken(theirs(foolbox.attacks.LinfFastGradientAttack(), 0.1, saturated))
    assert own.mean() > 0.95 * usual.mean()
    assert other.mean() < 0.8 * own.mean()
