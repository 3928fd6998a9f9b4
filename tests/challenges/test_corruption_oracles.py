"""Corruptions beside scikit-image, SciPy, Pillow, torchvision, and answers of OpenCV.

Where random numbers are drawn, the reference computation is given the same ones. Agreement is in
grey levels after the cut to whole numbers; what differs is told by `agree`.
"""

import itertools

import numpy as np
import pytest
import torch
from _pictures import pictures
from PIL import Image
from scipy import ndimage
from scipy.stats import poisson
from skimage import color, filters
from torchvision.transforms import v2

from gradbench.challenges import colour
from gradbench.challenges.corruptions import (
    blur,
    digital,
    elastic,
    noise,
    sampling,
)
from gradbench.challenges.corruptions import filters as own_filters
from gradbench.challenges.corruptions.base import to_unit
from gradbench.challenges.corruptions.tables import CIFAR, IMAGENET
from gradbench.challenges.counter import image_keys, normal, random_bits, uniform

CLEAN = pictures(6).images
IMAGES = to_unit(torch.from_numpy(CLEAN))
KEYS = image_keys(0, "oracle", [str(i) for i in range(6)])
LEVELS = range(5)
BOTH = [(table, level) for table in (CIFAR, IMAGENET) for level in LEVELS]


def agree(made: torch.Tensor, expected, share: float = 0.0, apart: int = 1) -> None:
    """Assert equal grey levels, but for a share of values that are at most so far apart."""
    found = np.clip(made.numpy() * 255, 0, 255).astype(np.uint8)
    wanted = np.stack([np.clip(e, 0, 255).astype(np.uint8).transpose(2, 0, 1) for e in expected])
    difference = np.abs(found.astype(int) - wanted)
    assert difference.max() <= apart
    assert (difference > 0).mean() <= share


def close(made: torch.Tensor, expected) -> None:
    """Assert equal values before the cut, which is chance where a surface is plain."""
    wanted = np.stack([np.clip(e, 0, 255).transpose(2, 0, 1) for e in expected])
    np.testing.assert_allclose(made.numpy() * 255, wanted, atol=1e-5, rtol=0)


def pixels() -> list[np.ndarray]:
    return [image.transpose(1, 2, 0) for image in CLEAN]


# colour: equal


@pytest.mark.parametrize("level", LEVELS)
def test_brightness_and_saturation_equal_scikit_image(level):
    def changed(image, place, factor, shift):
        hsv = color.rgb2hsv(image / 255.0)
        hsv[..., place] = np.clip(hsv[..., place] * factor + shift, 0, 1)
        return np.clip(color.hsv2rgb(hsv), 0, 1) * 255

    for table in (CIFAR, IMAGENET):
        shift = table["brightness"][level]
        made = digital.Brightness().corrupt(IMAGES, KEYS, shift)
        agree(made, [changed(image, 2, 1, shift) for image in pixels()])
        constants = table["saturate"][level]
        made = digital.Saturate().corrupt(IMAGES, KEYS, *constants)
        agree(made, [changed(image, 1, *constants) for image in pixels()])


def test_hue_of_every_kind_of_pixel_equals_scikit_image():
    levels = torch.tensor(list(itertools.product((0, 1, 127, 254, 255), repeat=3)))
    images = to_unit(levels.T.reshape(1, 3, 5, 25))
    hsv = colour.to_hsv(images)[0].permute(1, 2, 0).numpy()
    expected = color.rgb2hsv(images[0].permute(1, 2, 0).numpy())
    assert np.array_equal(hsv, expected)
    back = colour.to_rgb(*colour.to_hsv(images).unbind(1))
    assert np.array_equal(back[0].permute(1, 2, 0).numpy(), color.hsv2rgb(expected))


def test_contrast_equals_its_formula():
    for factor in CIFAR["contrast"]:
        means = [image.mean((0, 1)) / 255.0 for image in pixels()]
        expected = [((i / 255.0 - m) * factor + m) * 255 for i, m in zip(pixels(), means)]
        agree(digital.Contrast().corrupt(IMAGES, KEYS, factor), expected, share=0.0005)


# blur


@pytest.mark.parametrize(("table", "level"), BOTH)
def test_gaussian_blur_equals_scikit_image(table, level):
    deviation = table["gaussian_blur"][level]
    expected = [filters.gaussian(i / 255.0, deviation, channel_axis=-1) * 255 for i in pixels()]
    agree(blur.GaussianBlur().corrupt(IMAGES, KEYS, deviation), expected, share=0.0005)


@pytest.mark.parametrize("mode", ["nearest", "reflect", "mirror"])
@pytest.mark.parametrize("deviation", [0.3, 1.7, 6.0, 40.0])
def test_smoothing_equals_scipy(mode, deviation):
    plane = IMAGES[0, 0].numpy()
    expected = ndimage.gaussian_filter(plane, deviation, mode=mode, truncate=3)
    found = own_filters.gaussian(IMAGES[:1, :1], deviation, mode, truncate=3)[0, 0]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)


@pytest.mark.parametrize(("table", "level"), BOTH)
def test_defocus_equals_scipy_with_the_same_kernel(table, level):
    radius, rim = table["defocus_blur"][level]
    kernel = blur.disk(radius, rim).astype(np.float64)
    # a disk that touches the border of its square is brighter by what is mirrored there
    assert 1 - 1e-6 < kernel.sum() < (1.02 if radius >= 8 else 1 + 1e-6)
    np.testing.assert_allclose(kernel, kernel.T, rtol=1e-6)
    assert kernel.shape[0] >= 2 * int(radius) + 1
    expected = [
        np.stack([ndimage.correlate(i[..., c] / 255.0, kernel, mode="mirror") for c in range(3)], 2)
        for i in pixels()
    ]
    close(blur.DefocusBlur().corrupt(IMAGES, KEYS, radius, rim), [255 * e for e in expected])


@pytest.mark.parametrize("level", LEVELS)
def test_zoom_blur_agrees_with_scipy_zoom(level):
    end, step = CIFAR["zoom_blur"][level]

    def zoomed(image: np.ndarray, factor: float) -> np.ndarray:
        side = int(np.ceil(32 / factor))
        top = (32 - side) // 2
        cut = image[top : top + side, top : top + side]
        big = ndimage.zoom(cut, (factor, factor, 1), order=1)
        trim = (len(big) - 32) // 2
        return big[trim : trim + 32, trim : trim + 32]

    def blurred(image: np.ndarray) -> np.ndarray:
        x = image / 255.0
        factors = np.arange(1, end, step)
        return 255 * (x + sum(zoomed(x, f) for f in factors)) / (len(factors) + 1)

    close(blur.ZoomBlur().corrupt(IMAGES, KEYS, end, step), map(blurred, pixels()))
    flakes = sampling.zoomed(IMAGES[:, 0], 1.75)
    for plane, found in zip(IMAGES[:, 0].numpy(), flakes.numpy()):
        np.testing.assert_allclose(found, zoomed(plane[..., None], 1.75)[..., 0], atol=1e-12)


@pytest.mark.parametrize(("table", "level"), BOTH)
def test_glass_blur_equals_one_pixel_after_another(table, level):
    deviation, reach, rounds = table["glass_blur"][level]

    def one(number: int, image: np.ndarray) -> np.ndarray:
        x = np.uint8(filters.gaussian(image / 255.0, deviation, channel_axis=-1) * 255)
        for turn in range(rounds):
            bits = random_bits(KEYS[number : number + 1], 2 * 1024, turn).view(2, 32, 32)
            moves = ((((bits >> 33) & 0x7FFFFFFF) * (2 * reach)) >> 31).numpy() - reach
            for row in range(32 - reach, reach, -1):
                for column in range(32 - reach, reach, -1):
                    down, right = moves[:, row, column]
                    near = row + down, column + right
                    # numpy hands over views: the second pixel is given its own colour again
                    x[row, column], x[near] = x[near], x[row, column]
        return filters.gaussian(x / 255.0, deviation, channel_axis=-1) * 255

    expected = [one(number, image) for number, image in enumerate(pixels()[:3])]
    agree(
        blur.GlassBlur().corrupt(IMAGES[:3], KEYS[:3], deviation, reach, rounds),
        expected,
        share=0.0005,
    )


def test_a_trail_of_a_point_has_the_weights_of_half_a_gaussian():
    point = torch.zeros(3, 1, 33, 33, dtype=torch.float64)
    point[:, :, 16, 16] = 1
    angles = torch.tensor([0.0, -90.0, 45.0])
    weights = np.exp(-(np.arange(17) ** 2) / (2 * 3.0**2))
    found = sampling.trail(point, angles, 8, 3.0)[:, 0].numpy()
    np.testing.assert_allclose(found.sum((1, 2)), 1)
    np.testing.assert_allclose(found[0, 16, 16::-1], weights / weights.sum(), atol=1e-12)
    np.testing.assert_allclose(found[1, 16:, 16], weights / weights.sum(), atol=1e-12)
    diagonal = found[2, range(16, 4, -1), range(16, 4, -1)]
    assert found[2].sum() == pytest.approx(diagonal.sum(), abs=0.01)


# noise


@pytest.mark.parametrize("photons", [500, 60, 3])
def test_shot_noise_is_the_inverse_of_scipys_distribution(photons):
    bits = (random_bits(KEYS, 3 * 1024) >> 40) & 0xFFFFFF
    share = (bits.numpy().reshape(CLEAN.shape) + 0.5) / 2**24
    counts = poisson.ppf(share, CLEAN / 255.0 * photons)
    found = noise.ShotNoise().corrupt(IMAGES, KEYS, photons).numpy() * photons
    expected = np.minimum(counts, photons)
    assert (np.abs(found - expected) > 1e-9).mean() < 1e-5


def test_impulse_noise_is_salt_and_pepper_in_equal_parts():
    grey = torch.full((6, 3, 64, 64), 0.5, dtype=torch.float64)
    made = noise.ImpulseNoise().corrupt(grey, KEYS, 0.07)
    count = made.numel()
    for value in (0.0, 1.0):
        share = (made == value).double().mean().item()
        assert abs(share - 0.035) < 4 * np.sqrt(0.035 / count)
    assert ((made == 0.5) | (made == 0) | (made == 1)).all()


def test_speckle_noise_is_in_proportion_to_the_pixel():
    made = noise.SpeckleNoise().corrupt(IMAGES, KEYS, 0.2)
    drawn = normal(KEYS, IMAGES.shape[1:]).double()
    torch.testing.assert_close(made, (IMAGES * (1 + 0.2 * drawn)).clamp(0, 1))


# files and geometry


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("side", "width"), [(32, 32), (28, 28), (33, 50)])
def test_pixelate_equals_pillow(channels, side, width):
    clean = pictures(3, side, channels, width).images
    for share in (*CIFAR["pixelate"], *IMAGENET["pixelate"]):
        made = digital.Pixelate().corrupt(to_unit(torch.from_numpy(clean)), KEYS, share) * 255
        for image, found in zip(clean, made.round().byte().numpy()):
            picture = Image.fromarray(image.transpose(1, 2, 0).squeeze())
            small = picture.resize((int(width * share), int(side * share)), Image.Resampling.BOX)
            back = np.asarray(small.resize((width, side), Image.Resampling.BOX))
            assert np.array_equal(back.reshape(side, width, -1).transpose(2, 0, 1), found)


@pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")
@pytest.mark.parametrize("quality", [80, 40, 7])
def test_jpeg_agrees_with_torchvision(quality):
    made = (digital.JpegCompression().corrupt(IMAGES, KEYS, quality) * 255).round()
    expected = torch.stack([v2.functional.jpeg(i, quality) for i in torch.from_numpy(CLEAN)])
    apart = (made - expected).abs()
    assert apart.mean() < 1.5
    assert apart.max() <= 40  # libjpeg and its decoders smooth colour differently


@pytest.mark.parametrize(("table", "level"), BOTH)
def test_elastic_agrees_with_scikit_image_and_scipy(table, level):
    displacement, smoothing, corners = (32 * c for c in table["elastic_transform"][level])
    shifts = (uniform(KEYS, (3, 2)).double().numpy() * 2 - 1) * corners
    drawn = uniform(KEYS, (2, 32, 32), stream=1).double().numpy() * 2 - 1
    fixed = np.array([[26.0, 26], [26, 6], [6, 6]])

    def bent(number: int, image: np.ndarray) -> np.ndarray:
        # the affine map by solving for it, the rest by scipy
        moved = np.column_stack([fixed + shifts[number], np.ones(3)])
        back = np.linalg.solve(moved, fixed).T  # places in the image of places in the result
        y, x = np.mgrid[:32, :32].astype(float)
        read = back @ np.stack([x.ravel(), y.ravel(), np.ones(1024)])
        planes = [
            ndimage.map_coordinates(p, read[::-1], order=1, mode="mirror").reshape(32, 32)
            for p in image.transpose(2, 0, 1) / 255.0
        ]
        right, down = (
            filters.gaussian(plane, smoothing, mode="reflect", truncate=3) * displacement
            for plane in drawn[number]
        )
        planes = [
            ndimage.map_coordinates(p, [y + down, x + right], order=1, mode="reflect")
            for p in planes
        ]
        return np.stack(planes, 2) * 255

    expected = [bent(number, image) for number, image in enumerate(pixels())]
    made = elastic.ElasticTransform().corrupt(IMAGES, KEYS, *table["elastic_transform"][level])
    close(made, expected)
