"""Clouds by diamond-square, and fog made of them."""

import torch
from _pictures import pictures

from gradbench.challenges.corruptions.base import to_unit
from gradbench.challenges.corruptions.tables import CIFAR
from gradbench.challenges.corruptions.weather import Fog, plasma
from gradbench.challenges.counter import image_keys

IMAGES = to_unit(torch.from_numpy(pictures(6).images))
KEYS = image_keys(0, "oracle", [str(i) for i in range(6)])


def test_clouds_span_the_unit_interval_join_at_the_borders_and_roughen():
    keys = image_keys(0, "clouds", [str(i) for i in range(40)])
    smooth, rough = plasma(keys, 64, 3.0), plasma(keys, 64, 1.5)
    for cloud in (smooth, rough):
        assert cloud.amin((1, 2)).eq(0).all()
        assert cloud.amax((1, 2)).eq(1).all()
    steps = [(c - c.roll(1, 2)).abs().mean() for c in (smooth, rough)]
    assert steps[0] < 0.5 * steps[1]
    seam = (smooth[:, :, 0] - smooth[:, :, -1]).abs().mean()
    assert seam < 1.5 * steps[0]


def test_a_smooth_cloud_passes_through_the_mean_of_its_corners():
    """With spread but at the first scale, every later point is the mean of its neighbours."""
    cloud = plasma(KEYS, 32, 1e9).double()
    even = (cloud[:, ::16, ::16], cloud[:, 8::16, 8::16])
    corners = even[0] + even[0].roll(-1, 1) + even[0].roll(-1, 2) + even[0].roll((-1, -1), (1, 2))
    torch.testing.assert_close(even[1], corners / 4, atol=1e-6, rtol=0)


def test_fog_keeps_the_brightest_value_in_range():
    for weight, decay in CIFAR["fog"]:
        cloud = plasma(KEYS, 32, decay)[:, None]
        most = IMAGES.amax((1, 2, 3), keepdim=True)
        expected = (IMAGES + weight * cloud) * most / (most + weight)
        torch.testing.assert_close(Fog().corrupt(IMAGES, KEYS, weight, decay), expected.clamp(0, 1))
