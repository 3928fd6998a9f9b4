"""Frost: where its pictures are from, which part of them an image gets."""

from pathlib import Path

import numpy as np
import pytest
import torch
from _golden import challenge
from _pictures import pictures

from gradbench.challenges.corruptions import frost
from gradbench.challenges.corruptions.base import to_unit
from gradbench.challenges.corruptions.frost import synthesised
from gradbench.challenges.counter import image_keys
from gradbench.challenges.produce import ChallengeSetup
from gradbench.errors import GradbenchError

KEYS = image_keys(0, "oracle", [str(i) for i in range(6)])


def test_frost_names_where_its_pictures_are_from(tmp_path):
    made = challenge("frost").with_data(tmp_path)
    assert made.note == "constants: cifar; frost pictures synthesised"
    before = made.settings()["pictures"]
    colours = _frost_folder(tmp_path / "frost")
    found = challenge("frost").with_data(tmp_path)
    assert found.note == "constants: cifar"
    assert found.settings()["pictures"] != before
    moved = _frost_folder(tmp_path / "other")
    named = challenge("frost", pictures=str(tmp_path / "other")).with_data(tmp_path / "nowhere")
    assert colours == moved
    assert named.settings()["pictures"] == found.settings()["pictures"]  # content, not path


def test_frost_lays_the_first_five_pictures_over_the_image(tmp_path):
    colours = _frost_folder(tmp_path / "frost")
    clean = pictures(60)
    made = challenge("frost").with_data(tmp_path)
    source = ChallengeSetup(made, "frost", made.strength_at(1), quantise=False)
    layer = source.make(clean, np.arange(60)) * 255.0 - clean.images
    inside = (clean.images + layer > 1) & (clean.images + layer < 254)
    drawn = set()
    for image, mine in zip(layer, inside):
        levels = [round(float(np.median(p[m])) / 0.2) for p, m in zip(image, mine) if m.any()]
        drawn |= {
            number for number, colour in enumerate(colours) if colour[: len(levels)] == levels
        }
    assert drawn == {0, 1, 2, 3, 4}


def test_frost_folders_that_are_not_whole(tmp_path):
    with pytest.raises(GradbenchError, match=r"frost1\.png is not there; name a folder of"):
        challenge("frost", pictures=str(tmp_path))
    _frost_folder(tmp_path)
    (tmp_path / "frost3.png").write_bytes(b"no picture")
    with pytest.raises(GradbenchError, match=r"frost3\.png is no readable picture"):
        challenge("frost", pictures=str(tmp_path))


def _frost_folder(folder: Path) -> list[list[int]]:
    """Write six plain pictures and return the colours of the first five."""
    from PIL import Image

    folder.mkdir(exist_ok=True)
    colours = [[10 * n + 5, 100 + 10 * n, 200 + 5 * n] for n in range(6)]
    names = [f"frost{n}.{'png' if n <= 3 else 'jpg'}" for n in range(1, 7)]
    for name, colour in zip(names, colours):
        pixels = np.broadcast_to(np.array(colour, np.uint8), (300, 400, 3))
        Image.fromarray(pixels).save(folder / name, quality=100, subsampling=0)
    read = []
    for name in names[:5]:
        with Image.open(folder / name) as picture:
            read.append(list(picture.convert("RGB").getpixel((9, 9))))
    return read


def test_frost_is_a_part_of_every_fifth_pixel():
    rng = np.random.default_rng(0)
    picture = torch.from_numpy(rng.integers(0, 256, (3, 260, 300), dtype=np.uint8))
    own = frost.Frost()
    own._pictures = (picture,)
    made = own.corrupt(to_unit(torch.zeros(6, 3, 32, 32)), KEYS, 1.0, 1.0)
    small = picture[:, 2::5, 2::5].double() / 255
    for image in made:
        places = [
            (y, x)
            for y in range(small.shape[1] - 32)
            for x in range(small.shape[2] - 32)
            if torch.equal(small[:, y : y + 32, x : x + 32], image)
        ]
        assert len(places) == 1


def test_synthesised_frost_is_light_varied_and_the_same_every_time():
    made = synthesised()
    assert len(made) == 5
    assert len({p.numpy().tobytes() for p in made}) == 5
    for picture in made:
        levels = picture.double()
        assert 50 < levels.mean() < 200
        assert levels.std() > 25
        assert levels[2].mean() > levels[0].mean()  # bluish
    assert all(map(torch.equal, made, synthesised.__wrapped__()))
