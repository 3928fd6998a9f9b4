"""Pictures of every mode and orientation, brought to 8 bits and upright."""

import numpy as np
import pytest
from PIL import Image

from gradbench.data.files import open_files
from gradbench.data.picture import Fit, eight_bits, fit_picture, upright, upright_size

RAMP = np.arange(6 * 4, dtype=np.uint8).reshape(4, 6) * 10
TURNS = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda a: np.rot90(a, 1),
    7: lambda a: np.rot90(np.transpose(a), 2),
    8: lambda a: np.rot90(a, -1),
}
"""How the sensor saw an upright picture, by the orientation that is noted (EXIF 2.3, 4.6.4)."""


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp"])
def test_a_photograph_is_turned_upright(tmp_path, orientation, name):
    exif = Image.Exif()
    exif[0x0112] = orientation
    seen = Image.fromarray(np.ascontiguousarray(TURNS[orientation](RAMP)))
    how = {"a.webp": {"lossless": True}, "a.tif": {"compression": "tiff_lzw"}}.get(name, {})
    seen.save(tmp_path / name, exif=exif, **how)
    with Image.open(tmp_path / name) as picture:
        assert np.array_equal(np.asarray(upright(picture).convert("L")), RAMP)
        if not name.endswith("png"):
            assert upright_size(picture) == (6, 4)
    with Image.open(tmp_path / name) as picture:
        assert np.array_equal(fit_picture(picture, (1, 4, 6), Fit())[0], RAMP)
    files = open_files([tmp_path / name], None, 1)
    if not name.endswith("png"):
        assert files.shape == (1, 3, 4, 6)
        assert np.array_equal(files[:1][0, 0], RAMP)


@pytest.mark.parametrize("kind", [np.uint16, np.int32])
def test_grey_of_16_bits_is_scaled(kind):
    values = np.array([[0, 128, 129, 257, 2570, 32768, 65535]])
    picture = eight_bits(Image.fromarray(values.astype(kind)))
    assert np.asarray(picture).tolist() == [[0, 0, 1, 1, 10, 128, 255]]


@pytest.mark.parametrize("mode", ["1", "P", "LA", "RGBA", "CMYK", "YCbCr", "HSV"])
def test_other_modes_become_rgb(mode):
    black_and_white = Image.fromarray(np.array([[0, 255]], np.uint8)).convert("RGB")
    picture = eight_bits(black_and_white.convert(mode))
    assert picture.mode in ("RGB", "L")
    assert np.asarray(picture.convert("RGB")).tolist() == [[[0] * 3, [255] * 3]]


def test_pixels_of_unknown_range_are_refused():
    for values in (np.ones((2, 2), np.float32), np.full((2, 2), -1, np.int32)):
        with pytest.raises(ValueError, match="integers of 8 or 16 bits"):
            eight_bits(Image.fromarray(values))
