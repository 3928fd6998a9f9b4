"""Pictures of every mode and orientation, brought to 8 bits and upright."""

import numpy as np
import pytest
from _data_sets import build
from PIL import Image

from gradbench.data.dataset import DataSettings
from gradbench.data.files import open_files
from gradbench.data.picture import Resampling, eight_bits, fit_picture, upright_size
from gradbench.data.resample import resize_to
from gradbench.data.user_data import Folder
from gradbench.errors import GradbenchError, MissingData

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
    if not name.endswith("png"):
        with Image.open(tmp_path / name) as picture:
            assert upright_size(picture) == (6, 4)
    with Image.open(tmp_path / name) as picture:
        assert np.array_equal(fit_picture(picture, (1, 4, 6), Resampling())[0], RAMP)
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
        with pytest.raises(ValueError, match="integers of 8 to 16 bits"):
            eight_bits(Image.fromarray(values))


@pytest.mark.parametrize("below", [0, 200])
@pytest.mark.parametrize("form", ["RGBA", "LA", "P", "gif"])
def test_what_is_transparent_is_seen_on_white_whatever_lies_below(tmp_path, below, form):
    alpha = np.where(RAMP > 100, 255, 0).astype(np.uint8)
    seen = np.where(alpha > 0, RAMP, 255)
    grey = np.where(alpha > 0, RAMP, below).astype(np.uint8)
    picture = Image.fromarray(np.dstack([grey] * 3 + [alpha]))
    if form == "gif":
        picture.save(tmp_path / "a.gif", disposal=2)
        picture = Image.open(tmp_path / "a.gif")
    elif form != "RGBA":
        picture = picture.convert("LA") if form == "LA" else picture.quantize()
    off = np.abs(fit_picture(picture, (1, 4, 6), Resampling())[0].astype(int) - seen).max()
    assert off <= (6 if form in ("P", "gif") else 1)  # palettes hold fewer colours


def test_opaque_pictures_with_an_alpha_channel_keep_every_pixel():
    colours = np.random.default_rng(0).integers(0, 256, (4, 6, 4), dtype=np.uint8)
    colours[..., 3] = 255
    assert np.array_equal(
        fit_picture(Image.fromarray(colours), (3, 4, 6), Resampling()),
        colours[..., :3].transpose(2, 0, 1),
    )


@pytest.mark.parametrize("kind", [np.uint16, np.int32])
def test_grey_of_fewer_bits_than_it_is_held_in_is_read_as_said_or_refused(tmp_path, kind):
    values = RAMP.astype(kind) * 16
    with pytest.raises(ValueError, match="no value above 3680: say how many bits"):
        eight_bits(Image.fromarray(values))
    assert np.abs(np.asarray(eight_bits(Image.fromarray(values), 12)).astype(int) - RAMP).max() <= 1
    assert np.array_equal(np.asarray(eight_bits(Image.fromarray(RAMP.astype(kind)), 8)), RAMP)
    with pytest.raises(ValueError, match="a value of 3680, beyond 10 bits"):
        eight_bits(Image.fromarray(values), 10)
    Image.fromarray(values).save(tmp_path / "a.tif", tiffinfo={281: 4095})
    with Image.open(tmp_path / "a.tif") as picture:
        assert np.abs(np.asarray(eight_bits(picture)).astype(int) - RAMP).max() <= 1
    assert np.asarray(eight_bits(Image.fromarray(values * 0))).max() == 0


def test_a_set_tells_how_many_bits_its_files_have(tmp_path):
    Image.fromarray(RAMP.astype(np.uint16) * 16).save(tmp_path / "a.png")
    roles = {"challenge": ["test", "all"]}
    settings = DataSettings(tmp_path, download=False)
    own = Folder(path=str(tmp_path), roles=roles)
    with pytest.raises(MissingData, match=r"a\.png \(grey of more than 8 bits"):
        own.load("challenge", settings).images[:1]
    told = Folder(path=str(tmp_path), roles=roles, bits=12).load("challenge", settings)
    for images in (told, told.select(np.array([0])), resize_to(told, (1, 4, 6))):
        assert np.abs(images.images[:1][0, 0].astype(int) - RAMP).max() <= 1
    with pytest.raises(GradbenchError, match="folder bits=17: write a whole number"):
        build("folder", path=str(tmp_path), bits=17)


def test_pictures_of_every_ending_are_read_and_other_files_counted(tmp_path, capsys):
    names, forms = ("a.jfif", "b.jpe", "c.avif", "d.jp2"), ("JPEG", "JPEG", "AVIF", "JPEG2000")
    for name, form in zip((*names, "e.PNG"), (*forms, "PNG")):
        Image.new("RGB", (8, 8), (250, 5, 5)).save(tmp_path / name, form)
    for name in ("notes.txt", "more.txt", "README", ".hidden"):
        (tmp_path / name).touch()
    own = Folder(path=str(tmp_path), roles={"challenge": ["test", "all"]})
    images = own.load("challenge", DataSettings(tmp_path, download=False))
    assert len(images) == 5
    assert (np.abs(images.images[:].mean((2, 3)) - (250, 5, 5)) < 6).all()
    assert "3 other files are passed over" in capsys.readouterr().err
