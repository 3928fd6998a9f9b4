"""Images of nothing but noise: their distribution, and that nothing but the seed moves them."""

import numpy as np
import pytest
import torch
from _dummies import images
from scipy import stats

from gradbench.challenges.base import ImageRequest
from gradbench.challenges.noise_images import NoiseImages
from gradbench.data.dataset import Dataset, DataSettings
from gradbench.errors import GradbenchError


def drawn(distribution, count=300, seed=0, name="noise", **settings):
    clean = images(20, channels=3)
    asked = ImageRequest(name, None, clean, Dataset(name="toy"), DataSettings("nowhere"), seed)
    return NoiseImages(distribution, count, **settings).find(asked)


def test_uniform_images_hold_every_grey_level_as_often():
    found = drawn("uniform")
    pixels = found.images[:]
    assert (pixels.shape, pixels.dtype) == ((300, 3, 8, 8), np.uint8)
    counts = np.bincount(pixels.ravel(), minlength=256)
    assert stats.chisquare(counts).pvalue > 0.001
    assert (found.status, found.note) == ("generated", "independent pixels, uniform on 0 to 255")


def test_normal_images_are_cut_at_both_ends():
    pixels = drawn("gaussian").images[:]
    # a grey level g holds what lies within half a level of it, the ends all that is beyond
    edges = np.concatenate([[-np.inf], (np.arange(255) + 0.5) / 255, [np.inf]])
    expected = np.diff(stats.norm.cdf(edges, 0.5, 1.0)) * pixels.size
    counts = np.bincount(pixels.ravel(), minlength=256)
    assert stats.chisquare(counts, expected * counts.sum() / expected.sum()).pvalue > 0.001
    narrow = drawn("gaussian", sigma=0.1).images[:] / 255
    assert narrow.std() == pytest.approx(0.1, abs=0.002)


@pytest.mark.parametrize("distribution", ["uniform", "gaussian"])
def test_images_are_the_same_in_any_batch_and_differ_by_seed(distribution):
    found = drawn(distribution)
    whole = found.images[:]
    rows = np.array([299, 5, 5])
    assert np.array_equal(found.images[rows], whole[rows])
    assert found.digests == drawn(distribution, name="other").digests
    assert not np.array_equal(drawn(distribution, seed=1).images[:], whole)
    assert len(np.unique(whole.reshape(300, -1), axis=0)) == 300
    together = torch.from_numpy(whole.reshape(300, -1)).double()
    corr = torch.corrcoef(together[:50]).fill_diagonal_(0)
    assert corr.abs().max() < 0.4


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"distribution": "gausian"}, "did you mean gaussian"),
        ({"distribution": "uniform", "count": 0}, "count=0: a whole number, at least 10"),
        ({"distribution": "gaussian", "sigma": 0}, "sigma=0: choose a value above 0"),
    ],
)
def test_settings_out_of_range_are_one_sentence(settings, words):
    with pytest.raises(GradbenchError, match=words):
        NoiseImages(**settings)
