"""The strengths of the stand-in for CURE-TSR, five levels of every type.

CURE-TSR made its challenges with a video editor whose settings are not published. These strengths
are gradbench's own, chosen by eye on traffic signs of 32 x 32: level 1 is seen beside the clean
sign, and at level 5 a sign is hard to read for most types (lost colours alone hide none). They are
no calibration: a level here is not that level there, and numbers measured with them are never those
of CURE-TSR.

Lengths are pixels of an image whose shorter side is 32 and grow with it.
"""

from __future__ import annotations

from collections.abc import Mapping

SIDE = 32
"""Shorter side, in pixels, for which lengths are given."""

TABLE: Mapping[str, tuple[float, ...]] = {
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
