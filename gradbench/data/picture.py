"""One picture in another size or with other channels.

Pillow does it: one engine has all five filters, works on each picture by itself in integers (so
the bits depend neither on the batch nor on the processor), rounds to the 1/255 grid and lets
several threads work at once. `torch.nn.functional.interpolate` lacks box and Lanczos.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image, ImageOps

from gradbench.errors import GradbenchError, unknown

FILTERS = {
    name: Image.Resampling[name.upper()]
    for name in ("nearest", "box", "bilinear", "bicubic", "lanczos")
}
JPEG = (".jpg", ".jpeg", ".jpe", ".jfif")
SUFFIXES = (
    ".png", *JPEG, ".bmp", ".dib", ".gif", ".pbm", ".pgm", ".ppm", ".pnm", ".tga", ".tif", ".tiff",
    ".webp", ".avif", ".jp2", ".j2k",
)  # fmt: skip
"""Endings of the files that are taken for pictures."""
MODES = ("resize", "crop", "centre")
PLAIN = ("nearest", "bilinear")  # filters that exist without antialiasing


@dataclass(frozen=True)
class Resampling:
    """How pictures take another size.

    Mode `resize` takes the whole picture, squashed where proportions differ; `crop` takes the
    largest central part that has the proportions of the target, `centre` the middle seven eighths
    of that, as 224 pixels of a photograph of which the shorter side was brought to 256.
    """

    filter: str = "bilinear"  # of `FILTERS`
    antialias: bool = True  # widen the filter when a picture shrinks; no difference to `nearest`
    mode: str = "resize"

    def __post_init__(self):
        if self.filter not in FILTERS:
            raise unknown("filter", self.filter, FILTERS)
        if self.mode not in MODES:
            raise unknown("mode of resampling", self.mode, MODES)
        if not self.antialias and self.filter not in PLAIN:
            raise GradbenchError(
                f"the filter {self.filter} always antialiases: without antialiasing choose "
                f"{' or '.join(PLAIN)}"
            )

    @property
    def part(self) -> float:
        """The part of each side of the largest central part that is taken, if one is."""
        return 7 / 8 if self.mode == "centre" else 1

    def __str__(self) -> str:
        smooth = self.antialias and self.filter != "nearest"
        return f"{self.filter} antialiased" if smooth else self.filter


def fit_picture(
    picture: Image.Image,
    shape: tuple[int, int, int],
    resampling: Resampling,
    bits: int | None = None,
) -> np.ndarray:
    """Return a picture as (C, H, W) uint8 of a given shape; for `bits` see `eight_bits`.

    A photograph that says how the camera was held is turned upright. RGB becomes grey by the luma
    of ITU-R 601 before the resampling, grey becomes RGB by repetition after it; what is transparent
    is composed over white.

    Raises:
        ValueError: for pixels whose range is not known.
    """
    channels, height, width = shape
    upright = picture if _orientation(picture) == 1 else ImageOps.exif_transpose(picture)
    picture = eight_bits(upright, bits)
    if channels == 1 and picture.mode == "RGB":
        picture = picture.convert("L")
    if resampling.mode != "resize":
        picture = picture.crop(central_box(picture.size, (width, height), resampling.part))
    return to_array(resample(picture, (width, height), resampling), channels)


def eight_bits(picture: Image.Image, bits: int | None = None) -> Image.Image:
    """Return a picture of any mode as grey or RGB with 8 bits a channel.

    What is transparent is composed over white, as most programs show it: the colours below are
    arbitrary. Grey of more bits is scaled; Pillow would cut it off at 255. Its `bits` are those
    that are given, else what the file says, else 16 where the values are no smaller than 12 bits
    would be.

    Raises:
        ValueError: for floating-point pixels, and for integers whose range is not known: 12 bits
            read as 16 are nearly black.
    """
    if picture.mode[0] not in "IF":
        if picture.has_transparency_data:
            white = Image.new("RGBA", picture.size, "white")
            white.alpha_composite(picture.convert("RGBA"))
            return white.convert("RGB")
        return picture if picture.mode in ("L", "RGB") else picture.convert("RGB")
    values = np.asarray(picture).astype(np.int64)
    least, most = int(values.min()), int(values.max())
    if picture.mode == "F" or least < 0 or most >= 2**16:
        raise ValueError("pixels that are no integers of 8 to 16 bits")
    bits = bits or _declared_bits(picture) or (16 if most >= 2**12 or most == 0 else None)
    if bits is None:
        raise ValueError(
            f"grey of more than 8 bits, but no value above {most}: say how many bits "
            "(dataset.bits=12 of a run, --bits 12 of score)"
        )
    full = 2**bits - 1
    if most > full:
        raise ValueError(f"a value of {most}, beyond {bits} bits")
    return Image.fromarray(((values * 255 + full // 2) // full).astype(np.uint8))


def _declared_bits(picture: Image.Image) -> int | None:
    """Return the bits that a TIFF file says its values have, None where it does not say less."""
    tags = getattr(picture, "tag_v2", {})
    most, held = (
        value[0] if isinstance(value, tuple) and value else value
        for value in map(tags.get, (ExifTags.Base.MaxSampleValue, ExifTags.Base.BitsPerSample))
    )
    if most is not None and 0 < most < 2**16 - 1:
        return int(most).bit_length()
    return held if held is not None and 8 <= held < 16 else None


def upright_size(picture: Image.Image) -> tuple[int, int]:
    """Return width and height of a picture once it is upright, without decoding it."""
    if picture.format == "PNG":  # where it may stand behind the pixels
        return picture.size
    return picture.size[::-1] if _orientation(picture) >= 5 else picture.size


def _orientation(picture: Image.Image) -> int:
    if picture.format == "TIFF":  # which Pillow turns itself
        return 1
    return picture.getexif().get(ExifTags.Base.Orientation, 1)


def resample(picture: Image.Image, size: tuple[int, int], resampling: Resampling) -> Image.Image:
    """Return a whole picture in another size (width, height)."""
    if picture.size == size:
        return picture
    if resampling.antialias or resampling.filter == "nearest":
        return picture.resize(size, FILTERS[resampling.filter])
    across, down = picture.width / size[0], picture.height / size[1]
    return picture.transform(
        size, Image.Transform.AFFINE, (across, 0, 0, 0, down, 0), FILTERS[resampling.filter]
    )


def central_box(
    size: tuple[int, int], target: tuple[int, int], part: float = 1
) -> tuple[int, int, int, int]:
    """Return the box of the largest central part with the proportions of the target.

    Or of a part of it, less than 1 on each side.

    >>> central_box((640, 480), (32, 32))
    (80, 0, 560, 480)
    >>> central_box((640, 480), (32, 32), 7 / 8)
    (110, 30, 530, 450)
    """
    width = max(round(part * min(size[0], round(size[1] * target[0] / target[1]))), 1)
    height = max(round(part * min(size[1], round(size[0] * target[1] / target[0]))), 1)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return left, top, left + width, top + height


def compress_jpeg(picture: Image.Image, quality: int) -> Image.Image:
    """Write a picture as JPEG in memory (chroma halved, Pillow's default) and read it again."""
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=quality)
    compressed = Image.open(stream)
    compressed.load()
    return compressed


def to_picture(pixels: np.ndarray) -> Image.Image:
    """Return (C, H, W) uint8 as a picture, grey for one channel and RGB for three."""
    return Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0).copy())


def to_array(picture: Image.Image, channels: int) -> np.ndarray:
    """Return a grey or RGB picture as (channels, H, W) uint8."""
    if channels == 1:
        return np.asarray(picture.convert("L"))[None]
    return np.asarray(picture.convert("RGB")).transpose(2, 0, 1)
