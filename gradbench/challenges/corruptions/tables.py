"""The constants of every family and level, in three tables.

CIFAR (small images) and IMAGENET (224 pixels) are those of `make_cifar_c.py` and
`make_imagenet_c.py` (Hendrycks and Dietterich 2019, "Benchmarking Neural Network Robustness to
Common Corruptions and Perturbations", https://github.com/hendrycks/robustness), CURE_LIKE is
gradbench's own. A family with several constants a level has tuples, in the order of the arguments
of its `corrupt`.
"""

from __future__ import annotations

from collections.abc import Mapping

Strength = float | tuple[float, ...]
"""The constants of a level: one number, or several."""

CIFAR: Mapping[str, tuple[Strength, ...]] = {
    # standard deviation, pixels in [0, 1]
    "gaussian_noise": (0.04, 0.06, 0.08, 0.09, 0.10),
    # photons of a white pixel
    "shot_noise": (500.0, 250.0, 100.0, 75.0, 50.0),
    # share of values that turn black or white
    "impulse_noise": (0.01, 0.02, 0.03, 0.05, 0.07),
    # standard deviation as a share of the pixel
    "speckle_noise": (0.06, 0.1, 0.12, 0.16, 0.2),
    # standard deviation in pixels
    "gaussian_blur": (0.4, 0.6, 0.7, 0.8, 1.0),
    # radius of the disk, standard deviation that softens its rim
    "defocus_blur": ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
    # standard deviation of the blur, largest move in pixels, rounds
    "glass_blur": ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
    # radius (the trail has 2 radius + 1 pixels), standard deviation along it
    "motion_blur": ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
    # end (excluded) and step of the zoom factors, which begin at 1
    "zoom_blur": ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
    # weight of the fog, decay of its roughness from scale to scale
    "fog": ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
    # weights of image and frost
    "frost": ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
    # mean and deviation of the normal noise that flakes are made of, zoom, threshold below which
    # there is no flake, radius and deviation of their trail, weight of the image against a
    # brighter, greyer one
    "snow": (
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    ),
    # mean and deviation of the normal noise that becomes liquid, deviation of its smoothing,
    # threshold below which there is none, strength of water at its brightest (of mud: deviation
    # that smooths its mask), 0 water or 1 mud
    "spatter": (
        (0.62, 0.1, 0.7, 0.7, 0.5, 0),
        (0.65, 0.1, 0.8, 0.7, 0.5, 0),
        (0.65, 0.3, 1, 0.69, 0.5, 0),
        (0.65, 0.1, 0.7, 0.69, 0.6, 1),
        (0.65, 0.1, 0.5, 0.68, 0.6, 1),
    ),
    # added to the value of HSV
    "brightness": (0.05, 0.1, 0.15, 0.2, 0.3),
    # factor of the distance from the mean
    "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),
    # factor of the saturation of HSV, and what is added to it
    "saturate": ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
    # quality
    "jpeg_compression": (80, 65, 58, 50, 40),
    # side of the reduced image as a share
    "pixelate": (0.95, 0.9, 0.85, 0.75, 0.65),
    # factor of the smoothed uniform displacements, deviation of the smoothing, largest shift of the
    # three points that define the affine map: shares of the shorter side
    "elastic_transform": (
        (0, 0, 0.08),
        (0.05, 0.2, 0.07),
        (0.08, 0.06, 0.06),
        (0.1, 0.04, 0.05),
        (0.1, 0.03, 0.03),
    ),
}

_SIDE = 244 / 224
"""The ImageNet script takes 244 for the side of an image of 224 pixels."""

IMAGENET: Mapping[str, tuple[Strength, ...]] = {
    "gaussian_noise": (0.08, 0.12, 0.18, 0.26, 0.38),
    "shot_noise": (60.0, 25.0, 12.0, 5.0, 3.0),
    "impulse_noise": (0.03, 0.06, 0.09, 0.17, 0.27),
    "speckle_noise": (0.15, 0.2, 0.35, 0.45, 0.6),
    "gaussian_blur": (1.0, 2.0, 3.0, 4.0, 6.0),
    "defocus_blur": ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    "glass_blur": ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    "motion_blur": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    "zoom_blur": ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
    "fog": ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
    "frost": ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
    "snow": (
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    ),
    "spatter": (
        (0.65, 0.3, 4, 0.69, 0.6, 0),
        (0.65, 0.3, 3, 0.68, 0.6, 0),
        (0.65, 0.3, 2, 0.68, 0.5, 0),
        (0.65, 0.3, 1, 0.65, 1.5, 1),
        (0.67, 0.4, 1, 0.65, 1.5, 1),
    ),
    "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),
    "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),
    "saturate": ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
    "jpeg_compression": (25, 18, 15, 10, 7),
    "pixelate": (0.6, 0.5, 0.4, 0.3, 0.25),
    "elastic_transform": (
        (2 * _SIDE, 0.7 * _SIDE, 0.1 * _SIDE),
        (2 * _SIDE, 0.08 * _SIDE, 0.2 * _SIDE),
        (0.05 * _SIDE, 0.01 * _SIDE, 0.02 * _SIDE),
        (0.07 * _SIDE, 0.01 * _SIDE, 0.02 * _SIDE),
        (0.12 * _SIDE, 0.01 * _SIDE, 0.02 * _SIDE),
    ),
}

TABLES = {"cifar": CIFAR, "imagenet": IMAGENET}
FAMILIES = tuple(CIFAR)

CURE_LIKE: Mapping[str, tuple[float, ...]] = {
    # share of the colour that is lost
    "decolorization": (0.2, 0.4, 0.6, 0.8, 1.0),
    # radius of the disk that a point becomes, in pixels
    "lens_blur": (1.0, 1.5, 2.0, 2.5, 3.2),
    # share of the blocks of 4 x 4 pixels that are decoded wrongly
    "codec_error": (0.1, 0.2, 0.35, 0.5, 0.7),
    # share of the light that is lost
    "darkening": (0.3, 0.45, 0.6, 0.72, 0.84),
    # share of the lens that is covered by dirt
    "dirty_lens": (0.1, 0.2, 0.3, 0.45, 0.6),
    # light that is added, as a share of what there is; what is above white is lost
    "exposure": (0.4, 0.9, 1.8, 3.5, 7.0),
    # standard deviation in pixels
    "gaussian_blur": (0.6, 0.9, 1.3, 1.8, 2.5),
    # standard deviation, pixels in [0, 1]
    "noise": (0.04, 0.08, 0.12, 0.18, 0.26),
    # share of the pixels at which a streak begins
    "rain": (0.006, 0.012, 0.02, 0.032, 0.048),
    # share of the light that is lost within the stripes
    "shadow": (0.25, 0.4, 0.55, 0.7, 0.85),
    # share of the pixels that are flakes, before they fall
    "snow": (0.02, 0.05, 0.09, 0.14, 0.2),
    # weight of the veil where it is thickest
    "haze": (0.25, 0.4, 0.55, 0.7, 0.85),
}
"""Strengths of the stand-ins for CURE-TSR, by challenge type.

CURE-TSR made its challenges with a video editor whose settings are not published. These strengths
are gradbench's own, chosen by eye on traffic signs of 32 x 32: level 1 is seen beside the clean
sign, and at level 5 a sign is hard to read for most types (lost colours alone hide none). They are
no calibration: a level here is not that level there, and numbers measured with them are never those
of CURE-TSR. Lengths are pixels of an image whose shorter side is 32 and grow with it.
"""
