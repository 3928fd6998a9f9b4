"""The semantic attack, its colours, and noisy copies."""

import colorsys
from dataclasses import replace

import numpy as np
import pytest
import torch
from _dummies import grey
from _every_attack import COLOURS, coloured, make
from _trained import digits

from gradbench.challenges.attacks.semantic import Semantic, hsv_to_rgb
from gradbench.challenges.colour import to_hsv
from gradbench.challenges.controls import NoisyCopy
from gradbench.challenges.counter import image_keys, uniform
from gradbench.challenges.produce import ChallengeSetup
from gradbench.data.imageset import source_ids
from gradbench.errors import GradbenchError


def rgb_to_hsv(rgb: torch.Tensor) -> torch.Tensor:
    return to_hsv(rgb[None])[0]


def red(count: int = 60):
    return replace(coloured(digits(count)), labels=np.zeros(count, np.int64))


def test_colours_are_those_of_the_standard_library():
    torch.manual_seed(0)
    rgb = torch.randint(0, 256, (3, 40, 25)).double() / 255
    rgb[:, 0, :5] = torch.tensor([0.0, 1.0, 0.5, 0.2, 0.9])  # grey, black and white
    rgb[:, 1, 0] = torch.tensor([1.0, 0.0, 0.0])
    rgb[:, 1, 1] = torch.tensor([0.5, 0.5, 0.1])  # two channels alike
    hsv = rgb_to_hsv(rgb)
    for place in np.ndindex(40, 25):
        pixel = (slice(None), *place)
        expected = colorsys.rgb_to_hsv(*rgb[pixel].tolist())
        assert hsv[pixel].tolist() == pytest.approx(expected, abs=1e-12)
        back = colorsys.hsv_to_rgb(*hsv[pixel].tolist())
        assert hsv_to_rgb(hsv)[pixel].tolist() == pytest.approx(back, abs=1e-12)


def test_the_way_there_and_back_leaves_every_grey_level():
    levels = torch.cartesian_prod(*[torch.arange(0, 256, 15)] * 3).T.float().view(3, -1, 1)
    back = hsv_to_rgb(rgb_to_hsv(levels / 255)) * 255
    assert torch.equal(back.round(), levels)


def test_value_stays_and_colours_turn():
    images = red()
    made = make(Semantic(trials=20), images, COLOURS)
    with torch.no_grad():
        named = COLOURS(torch.from_numpy(made).float() / 255).argmax(1).numpy()
    assert (named != 0).mean() > 0.9
    assert np.array_equal(made.max(1), images.images.max(1))


def test_every_image_is_kept_from_its_first_trial_that_works():
    images = red(30)
    trials = 40
    made = make(Semantic(trials=trials), images, COLOURS, seed=3)
    drawn = uniform(image_keys(3, "semantic", images.sources), (trials, 2))
    for row in range(30):
        clean = torch.from_numpy(images.images[row]).float() / 255
        expected = images.images[row]
        for trial in range(trials):
            h, s, v = rgb_to_hsv(clean).unbind(0)
            h = (h + drawn[row, trial, 0]) % 1
            s = (s + (2 * drawn[row, trial, 1] - 1) * trial / trials).clamp(0, 1)
            tried = (hsv_to_rgb(torch.stack([h, s, v])) * 255).round()
            if COLOURS(tried[None] / 255).argmax(1).item() != 0:
                expected = tried.numpy().astype(np.uint8)
                break
        assert np.array_equal(made[row], expected), row


def test_images_of_one_channel_stay_and_of_two_are_refused():
    images = digits(5)
    assert np.array_equal(make(Semantic(), images), images.images)
    two = replace(images, images=images.images.repeat(2, 1))
    with pytest.raises(GradbenchError, match="images of 2 channels have none"):
        make(Semantic(), two)


def test_images_that_withstand_stay():
    blind = replace(red(), images=np.zeros((60, 3, 8, 8), np.uint8))
    assert np.array_equal(make(Semantic(trials=30), blind, COLOURS), blind.images)


def test_noisy_copies_have_the_noise_of_the_normalised_space():
    images = grey(40, 3, 16)
    std = (0.1, 0.2, 0.3)
    source = ChallengeSetup(NoisyCopy(0.5, std), "noise", 0.5, quantise=False)
    change = source.make(images, np.arange(40)) - 128 / 255
    found = change.std((0, 2, 3))
    np.testing.assert_allclose(found, 0.5 * np.array(std), rtol=0.03)
    assert np.abs(change.mean((0, 2, 3))).max() < 0.005
    rounded = ChallengeSetup(NoisyCopy(0.5, std), "noise", 0.5).make(images, np.arange(40))
    assert np.array_equal(rounded, np.round((change + 128 / 255) * 255).astype(np.uint8))


def test_noisy_copies_are_drawn_by_image_and_differ_by_normalisation():
    images = replace(grey(30), sources=source_ids("a", "b", 30))
    source = ChallengeSetup(NoisyCopy(0.1, (0.2,) * 3), "noise", 0.1)
    whole = source.make(images, np.arange(30))
    rows = np.array([7, 2, 29])
    assert np.array_equal(source.make(images, rows), whole[rows])
    other = ChallengeSetup(NoisyCopy(0.1, (0.3,) * 3), "noise", 0.1)
    assert source.keys(images)[0].digest != other.keys(images)[0].digest
