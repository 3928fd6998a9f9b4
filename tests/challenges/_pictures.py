"""Images that look a little like photographs: soft shapes, grain, plain and coloured parts."""

import numpy as np

from gradbench.data.imageset import ImageSet, source_ids


def pictures(count: int = 6, side: int = 32, channels: int = 3, width: int | None = None):
    """Return (count, channels, side, width) images, the same in every run."""
    rng = np.random.default_rng(3)
    width = width or side
    y, x = np.mgrid[:side, :width] / side
    pixels = np.empty((count, channels, side, width))
    for image in pixels:
        shift, turn = rng.uniform(0, 6, channels), rng.uniform(1, 9, 2)
        for plane, phase in zip(image, shift):
            plane[:] = 120 + 90 * np.sin(turn[0] * x + phase) * np.cos(turn[1] * y + phase)
        image += rng.normal(0, 12, (1, side, width))
        image[:, : side // 4, : width // 3] = rng.integers(0, 256, (channels, 1, 1))
    whole = np.clip(pixels, 0, 255).astype(np.uint8)
    whole[0, :, -3:] = 255  # white and black, where clipping shows
    whole[-1, :, :, -3:] = 0
    labels = np.arange(count) % 3
    return ImageSet("pictures", "test", whole, labels, source_ids("pictures", "test", count))
