"""The twelve challenge types of CURE-TSR, generated for work without that set: a stand-in."""

from __future__ import annotations

import torch
from scipy.stats import norm
from torch import Tensor

from gradbench.challenges.colour import luma, tint
from gradbench.challenges.corruptions.base import CureLike
from gradbench.challenges.corruptions.blur import DefocusBlur, GaussianBlur
from gradbench.challenges.corruptions.filters import gaussian, gaussian_weights
from gradbench.challenges.corruptions.noise import GaussianNoise
from gradbench.challenges.corruptions.sampling import trail
from gradbench.challenges.corruptions.weather import Snow, clouds_over
from gradbench.challenges.counter import normal, uniform

SIDE = 32
"""Shorter side, in pixels, for which all lengths are given."""


def scale(images: Tensor) -> float:
    """Return the factor by which the shorter side of (B, C, H, W) images exceeds 32 pixels."""
    return min(images.shape[-2:]) / SIDE


class Decolorization(CureLike):
    """Colours fade to grey; images of one channel stay as they are."""

    type = "decolorization"

    def corrupt(self, images: Tensor, keys: Tensor, share: float) -> Tensor:
        """Move every pixel towards its luma."""
        return images + share * (luma(images) - images)


class Darkening(CureLike):
    """Less light on everything."""

    type = "darkening"

    def corrupt(self, images: Tensor, keys: Tensor, share: float) -> Tensor:
        """Take a share of the light away."""
        return images * (1 - share)


class Exposure(CureLike):
    """Too much light: pixels that would be brighter than white are white."""

    type = "exposure"
    bounds = (0, 20)

    def corrupt(self, images: Tensor, keys: Tensor, share: float) -> Tensor:
        """Add a share of the light."""
        return images * (1 + share)


class Shadow(CureLike):
    """Stripes of shadow, as of a fence or of blinds, in a direction of their own."""

    type = "shadow"
    PERIOD = 14  # pixels from stripe to stripe

    def corrupt(self, images: Tensor, keys: Tensor, share: float) -> Tensor:
        """Darken half of the pixels, or nearly, by a share.

        The waves are made of straight lines, so that no function of a library decides a bit.
        """
        height, width = images.shape[-2:]
        drawn = uniform(keys, (2,)).to(images.dtype)[:, :, None, None]
        lean, phase = 1.2 * drawn[:, :1] - 0.6, drawn[:, 1:]
        down = torch.arange(height, dtype=images.dtype, device=images.device)[:, None]
        right = torch.arange(width, dtype=images.dtype, device=images.device)
        wave = ((right + lean * down) / (self.PERIOD * scale(images)) + phase).remainder(1)
        depth = (0.5 + 4 * ((wave - 0.5).abs() - 0.25)).clamp_(0, 1)
        return images * (1 - share * depth)


class Haze(CureLike):
    """A veil of bright grey, thicker where a cloud drifts."""

    type = "haze"
    AIR = 0.8  # brightness of haze in the distance
    THIN = 0.7  # share of the haze that is everywhere; the rest is a cloud

    def corrupt(self, images: Tensor, keys: Tensor, weight: float) -> Tensor:
        """Mix images with bright grey, at its thickest with the given weight."""
        veil = weight * (self.THIN + (1 - self.THIN) * clouds_over(images, keys, 2.0))
        return images * (1 - veil) + self.AIR * veil


class LensBlur(CureLike):
    """A lens out of focus: every point becomes a disk, of a radius of whole and half pixels."""

    type = "lens_blur"
    bounds = (0, 16)
    RIM = 0.5  # deviation in pixels that softens the rim of the disk

    def corrupt(self, images: Tensor, keys: Tensor, radius: float) -> Tensor:
        """Correlate with a disk."""
        radius = radius * scale(images)
        return DefocusBlur().corrupt(images, keys, radius, min(self.RIM, radius / 2))


class CureGaussianBlur(CureLike):
    """Gaussian blur."""

    type = "gaussian_blur"
    bounds = (0, 16)

    def corrupt(self, images: Tensor, keys: Tensor, deviation: float) -> Tensor:
        """Smooth by a Gaussian."""
        return GaussianBlur().corrupt(images, keys, deviation * scale(images))


class DirtyLens(CureLike):
    """Spots of dry dirt on the lens, through which little is seen."""

    type = "dirty_lens"
    SPOT = 1.8  # deviation in pixels of the smoothing that gives spots of dirt their size
    EDGE = 0.8  # width of their edge, in deviations of the smoothed noise
    OPACITY = 0.85
    DIRT = (0.42, 0.38, 0.31)

    def corrupt(self, images: Tensor, keys: Tensor, share: float) -> Tensor:
        """Lay dirt over a share of the lens: where smoothed noise is above a threshold.

        With the share, spots grow and join; none goes.
        """
        size = self.SPOT * scale(images)
        noise = gaussian(normal(keys, images.shape[-2:]).to(images.dtype), size)
        noise /= sum(w * w for w in gaussian_weights(float(size)))  # of deviation 1 again
        least = float(norm.isf(share))
        mask = self.OPACITY * ((noise - least) / self.EDGE + 0.5).clamp_(0, 1)[:, None]
        return images * (1 - mask) + tint(self.DIRT, images) * mask


class Noise(CureLike):
    """Independent normal noise on every value."""

    type = "noise"
    bounds = (0, 4)
    corrupt = GaussianNoise.corrupt


class CodecError(CureLike):
    """Blocks of a damaged video stream: taken from a wrong place, and of a wrong colour."""

    type = "codec_error"
    BLOCK = 4  # pixels of a side of a block
    ASTRAY = 8  # pixels by which a wrong motion vector misses at most
    COLOUR = 0.15  # largest error of a block's mean in each channel

    def corrupt(self, images: Tensor, keys: Tensor, share: float) -> Tensor:
        """Replace a share of all blocks; with the share, more are damaged and none is mended.

        A damaged block shows what stands up to ASTRAY pixels away, edges repeated, plus a constant
        in each channel.
        """
        count, channels, height, width = images.shape
        side = max(round(self.BLOCK * scale(images)), 1)
        rows, columns = torch.arange(height), torch.arange(width)
        across = -(-width // side)
        block = (rows[:, None] // side * across + columns // side).to(images.device)  # (H, W)
        drawn = uniform(keys, (3 + channels, int(block.max()) + 1)).to(images.dtype)
        hit = (drawn[:, 0] < share)[:, block]
        reach = self.ASTRAY * scale(images)
        moves = ((2 * drawn[:, 1:3] - 1) * reach).round().long()[:, :, block]  # (B, 2, H, W)
        y = (rows[:, None].to(images.device) + moves[:, 0]).clamp_(0, height - 1)
        x = (columns.to(images.device) + moves[:, 1]).clamp_(0, width - 1)
        places = (y * width + x).view(count, 1, -1).expand(-1, channels, -1)
        wrong = images.flatten(2).gather(2, places).view(images.shape)
        wrong = (wrong + self.COLOUR * (2 * drawn[:, 3:] - 1)[:, :, block]).clamp_(0, 1)
        return torch.where(hit[:, None], wrong, images)


class Rain(CureLike):
    """Bright streaks that fall nearly straight, and a little grey."""

    type = "rain"
    LENGTH = 5  # pixels of a streak of rain, half of them counted
    LEAN = 15  # degrees by which rain leans to either side at most
    BRIGHT = 0.7  # brightness that a drop adds to black
    WET = 2.0  # weight of the grey veil, for each share of pixels that streaks begin at

    def corrupt(self, images: Tensor, keys: Tensor, share: float) -> Tensor:
        """Lay streaks over images; with the share, more begin and none goes."""
        begins = (uniform(keys, images.shape[-2:]) < share).to(images.dtype)[:, None]
        drawn = uniform(keys, (1,), stream=1)[:, 0].double()
        half = max(round(self.LENGTH * scale(images)), 1)
        streaks = trail(begins, 90 - self.LEAN + 2 * self.LEAN * drawn, half, 0.7 * half)
        light = self.BRIGHT * streaks.mul_(half).clamp_(0, 1)
        veil = min(self.WET * share, 1)
        grey = images * (1 - veil) + 0.55 * veil
        return grey + light * (1 - grey)


class CureSnow(CureLike):
    """Flakes that fall aslant over an image that whitens, as in CIFAR-10-C."""

    type = "snow"
    bounds = (0, 0.5)
    # of the noise that becomes flakes, their enlargement, and their least value
    DEVIATION, ZOOM, THRESHOLD = 0.3, 1.6, 0.6
    WHITE = 1.5  # how much images whiten, for each share of pixels that are flakes

    def corrupt(self, images: Tensor, keys: Tensor, share: float) -> Tensor:
        """Add flakes to a share of the pixels, before they fall."""
        # flakes are what of normal noise exceeds a threshold: the mean that gives their share
        mean = self.THRESHOLD - self.DEVIATION * float(norm.isf(share))
        radius = max(round(4 * scale(images)), 1)
        flakes = (mean, self.DEVIATION, self.ZOOM, self.THRESHOLD, radius, 0.8 * radius)
        return Snow().corrupt(images, keys, *flakes, 1 - self.WHITE * share)
