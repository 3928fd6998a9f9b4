"""Random numbers that depend on seed, family, image and position, and on nothing else."""

import numpy as np
import pytest
import torch
from scipy import stats

from gradbench.challenges.counter import image_keys, normal, random_bits, uniform

IDS = np.array([f"toy/test/{i}" for i in range(403)])
KEYS = image_keys(0, "noise", IDS)


def test_golden_values():
    # a change here changes every generated image: raise the version of the challenges
    keys = image_keys(3, "gaussian_noise", ["cifar10/test/0", "cifar10/test/1"])
    assert keys.tolist() == [-1478558035642006672, 113446400444012427]
    assert random_bits(keys, 2).tolist() == [
        [3083270695045888117, -6744142216214442395],
        [-21389393435589753, 6450856100570335826],
    ]
    assert random_bits(keys, 2, stream=1).tolist() == [
        [-8930758367606712268, -3615910212279449398],
        [-1087817846136564150, -2402223683297847539],
    ]
    assert uniform(keys, (2,)).tolist() == [
        [0.16714444756507874, 0.6343992948532104],
        [0.9988404512405396, 0.3497016131877899],
    ]
    golden = [
        [-0.38371390104293823, -0.6977158188819885, -1.8521764278411865],
        [0.011214764788746834, -0.6457503437995911, 0.046847324818372726],
    ]
    torch.testing.assert_close(normal(keys, (3,)), torch.tensor(golden), rtol=1e-6, atol=1e-8)


def test_mixing_function_is_splitmix64():
    """The first outputs of SplitMix64 with seed 0, from its reference implementation in C."""
    mask = 2**64 - 1

    def mix(x):
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & mask
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB & mask
        return x ^ (x >> 31)

    golden = 0x9E3779B97F4A7C15
    assert mix(golden) == 0xE220A8397B1DCDAF
    for stream in (0, 1, 7):
        bits = random_bits(KEYS[:5], 4, stream)
        for key, row in zip(KEYS[:5].tolist(), bits.tolist()):
            begin = mix((key + golden * (stream + 1)) & mask)
            expected = [mix(mix((begin + golden * i) & mask)) for i in range(4)]
            assert [value & mask for value in row] == expected


@pytest.mark.parametrize("shape", [(1,), (1, 8, 8), (3, 7, 5), (3, 32, 32)])
@pytest.mark.parametrize("draw", [uniform, normal])
def test_same_bits_in_any_batch_and_order(draw, shape):
    count = 60
    whole = draw(KEYS[:count], shape)
    assert whole.shape == (count, *shape)
    assert whole.dtype == torch.float32
    for size in (1, 7, 25):
        parts = [draw(part, shape) for part in KEYS[:count].split(size)]
        assert torch.equal(torch.cat(parts), whole)
    order = torch.randperm(count)
    assert torch.equal(draw(KEYS[:count][order], shape), whole[order])


def test_uniform_numbers():
    values = uniform(KEYS, (1000,)).flatten().double().numpy()
    assert values.min() > 0
    assert values.max() < 1
    assert abs(values.mean() - 0.5) < 4 * np.sqrt(1 / 12 / values.size)
    assert abs(values.var() - 1 / 12) < 4 * np.sqrt(1 / 180 / values.size)
    assert stats.kstest(values, "uniform").pvalue > 0.001


def test_normal_numbers():
    values = normal(KEYS, (1000,)).flatten().double().numpy()
    assert np.isfinite(values).all()
    assert abs(values.mean()) < 4 / np.sqrt(values.size)
    assert abs(values.var() - 1) < 4 * np.sqrt(2 / values.size)
    for share in (0.001, 0.05, 0.5, 0.95, 0.999):
        inside = (values < stats.norm.ppf(share)).mean()
        assert abs(inside - share) < 4.5 * np.sqrt(share * (1 - share) / values.size)
    assert stats.kstest(values, "norm").pvalue > 0.001


def test_both_halves_of_box_and_muller_are_independent():
    values = normal(KEYS, (1000,)).double()
    first, second = values[:, :500].flatten(), values[:, 500:].flatten()
    limit = 4 / first.numel() ** 0.5
    pairs = ((first, second), (first**2, second**2), (values[:, :-1], values[:, 1:]))
    for left, right in pairs:
        both = torch.stack([left.flatten(), right.flatten()])
        assert abs(torch.corrcoef(both)[0, 1]) < limit


@pytest.mark.parametrize(
    "other",
    [
        image_keys(1, "noise", IDS),
        image_keys(0, "shot", IDS),
        image_keys(0, "noise", np.char.replace(IDS, "test", "train")),
    ],
    ids=["seed", "family", "source"],
)
def test_seeds_families_and_images_differ(other):
    assert not (other == KEYS).any()
    both = torch.stack([normal(k, (500,)).flatten() for k in (KEYS, other)])
    assert abs(torch.corrcoef(both)[0, 1]) < 4 / both.shape[1] ** 0.5
