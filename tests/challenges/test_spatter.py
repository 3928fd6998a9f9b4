"""Spatter and the edges it needs: beside scikit-image and SciPy, and known answers of OpenCV."""

from pathlib import Path

import numpy as np
import pytest
import torch
from _pictures import pictures
from scipy import ndimage
from skimage import filters

from gradbench.challenges.corruptions import filters as own_filters
from gradbench.challenges.corruptions import spatter
from gradbench.challenges.corruptions.base import to_unit
from gradbench.challenges.corruptions.tables import CIFAR
from gradbench.challenges.counter import image_keys, normal

CLEAN = pictures(6).images
IMAGES = to_unit(torch.from_numpy(CLEAN))
KEYS = image_keys(0, "oracle", [str(i) for i in range(6)])


def opencv() -> dict[str, np.ndarray]:
    found, name = {}, ""
    for line in Path(__file__).with_name("opencv.txt").read_text().splitlines():
        if line.startswith("#"):
            continue
        if line.isalpha():
            name = line
            found[name] = []
        else:
            found[name].append([int(n) for n in line.split()])
    return {name: np.array(rows) for name, rows in found.items()}


def test_edges_distances_and_histograms_equal_opencv():
    known = opencv()
    plane = torch.from_numpy(known["plane"]).int()[None]
    found = spatter.canny(plane, 50, 150)
    assert np.array_equal(found[0].numpy(), known["edges"] > 0)
    away = spatter.distances(found)
    assert np.array_equal((away[0] * 10).round().numpy(), known["distances"])
    blurred = spatter.box_mean(away.clamp(max=20).double()).floor().int()
    assert np.array_equal(blurred[0].numpy(), known["blurred"])
    assert np.array_equal(spatter.equalised(blurred, 21)[0].numpy(), known["even"])


def test_weak_edges_join_strong_ones_and_no_others():
    plane = torch.zeros(2, 9, 30, dtype=torch.int32)
    plane[0, 4:] = torch.linspace(0, 90, 30).int()  # from below 50 / 4 to above 150 / 4
    plane[1, 4:] = 20
    found = spatter.canny(plane, 50, 150)
    assert found[0].any(0).sum() > 20
    assert not found[0].any(0)[:3].any()
    assert not found[1].any()


def test_distances_agree_with_scipy_within_the_masks_error():
    rng = np.random.default_rng(2)
    points = torch.from_numpy(rng.random((3, 40, 40)) < 0.004)
    found = spatter.distances(points).numpy()
    for plane, mine in zip(points.numpy(), found):
        exact = ndimage.distance_transform_edt(~plane)
        assert np.abs(mine - exact).max() <= 0.03 * exact.max()


@pytest.mark.parametrize("level", [3, 4])
def test_mud_equals_scikit_image(level):
    mean, deviation, smooth, threshold, rim, mud = CIFAR["spatter"][level]
    assert mud == 1
    drawn = normal(KEYS, (32, 32)).double().numpy()

    def muddy(plane: np.ndarray, image: np.ndarray) -> np.ndarray:
        liquid = filters.gaussian(plane * deviation + mean, smooth)
        mask = filters.gaussian((liquid > threshold).astype(float), rim)
        mask[mask < 0.8] = 0
        return image * (1 - mask[..., None]) + mask[..., None] * np.array([63, 42, 20])

    made = spatter.Spatter().corrupt(IMAGES, KEYS, *CIFAR["spatter"][level])
    expected = [
        muddy(plane, image.transpose(1, 2, 0)).transpose(2, 0, 1)
        for plane, image in zip(drawn, CLEAN)
    ]
    np.testing.assert_allclose(made.numpy() * 255, expected, atol=1e-6)


def test_water_brightens_drops_alone_and_no_drop_changes_nothing():
    constants = CIFAR["spatter"][2]
    made = spatter.Spatter().corrupt(IMAGES, KEYS, *constants)
    drawn = normal(KEYS, (32, 32)).double() * constants[1] + constants[0]
    dry = own_filters.gaussian(drawn, constants[2])[:, None] < constants[3]
    assert torch.equal(made[dry.expand(-1, 3, -1, -1)], IMAGES[dry.expand(-1, 3, -1, -1)])
    assert (made >= IMAGES).all()
    assert (made > IMAGES).any((1, 2, 3)).all()
    none = spatter.Spatter().corrupt(IMAGES, KEYS, 0.1, 0.01, 1.0, 0.7, 0.5, 0)
    assert torch.equal(none, IMAGES)
