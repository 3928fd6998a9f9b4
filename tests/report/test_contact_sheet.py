"""Contact sheets: every image stands there whole, its pixels as squares of equal pixels."""

import numpy as np
import pytest
from _panels import places
from PIL import Image

from gradbench.errors import GradbenchError
from gradbench.report import style
from gradbench.report.contact_sheet import Panel, Row, contact_sheet, enlarge, magnification


def noise(size=8, channels=3, seed=0):
    shape = (channels, size, size) if isinstance(size, int) else (channels, *size)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def rows_of(count, columns=3, size=8, caption=""):
    return [
        Row(f"class {i}", [Panel(noise(size, seed=10 * i + j), caption) for j in range(columns)])
        for i in range(count)
    ]


def draw(path, *args):
    contact_sheet(path, *args)
    return np.asarray(Image.open(path).convert("RGB"))


@pytest.mark.parametrize(("size", "factor"), [(8, 16), (28, 4), (32, 4), (64, 2), (65, 1), (96, 1),
                                               (256, 1)])  # fmt: skip
def test_every_pixel_becomes_a_square_of_equal_pixels(size, factor):
    image = noise(size)
    large = enlarge(image)
    assert large.shape == (factor * size, factor * size, 3)
    assert np.array_equal(large[::factor, ::factor].transpose(2, 0, 1), image)
    assert np.array_equal(large, np.kron(large[::factor, ::factor], np.ones((factor, factor, 1))))


def test_grey_is_shown_as_grey_and_other_proportions_are_kept():
    image = noise((10, 20), channels=1)
    large = enlarge(image)
    assert large.shape == (60, 120, 3)
    assert np.array_equal(large[::6, ::6], np.repeat(image[0][:, :, None], 3, axis=2))


def test_large_images_are_reduced():
    large = enlarge(np.full((3, 600, 300), 77, np.uint8))
    assert large.shape == (256, 128, 3)
    assert (large == 77).all()
    assert magnification((3, 600, 300)) == "300x600, reduced"


@pytest.mark.parametrize("count", [1, 7, 30])
def test_panels_hold_the_pixels_of_their_images_row_by_row(tmp_path, count):
    rows = rows_of(count, caption="cat\n97 %")
    picture = draw(tmp_path / "x.png", "title", ["note"], rows, ["a", "b", "c"])
    found = [[places(picture, panel.pixels) for panel in row.panels] for row in rows]
    assert all(len(at) == 1 for row in found for at in row)
    for row in found:
        (x, y), *others = (at[0] for at in row)
        assert others == [(x + 136, y), (x + 272, y)]
    assert 0.3 < picture.shape[1] / picture.shape[0] < 3
    order = [row[0][0] for row in found]
    assert order == sorted(order), "down the first block, then down the next"


def test_missing_panels_leave_their_place_white(tmp_path):
    rows = [Row("one", [Panel(noise()), None]), Row("two", [None, Panel(noise(seed=1))])]
    picture = draw(tmp_path / "x.png", "title", [], rows)
    (((_, y),), ((x, _),)) = (places(picture, noise(seed=seed)) for seed in (0, 1))
    assert (picture[y : y + 128, x : x + 128] == 255).all()


def test_a_caption_is_coloured_where_it_is_stressed(tmp_path):
    orange = np.array([int(style.COLOURS[1][i : i + 2], 16) for i in (1, 3, 5)])
    for stressed in (True, False):
        rows = [Row("", [Panel(np.zeros((1, 8, 8), np.uint8), "cat 97 %", stressed)])]
        picture = draw(tmp_path / "x.png", "title", [], rows)
        assert bool((picture == orange).all(2).any()) is stressed


def test_equal_input_gives_equal_bytes_and_nothing_else_is_left(tmp_path):
    for name in ("a.png", "b.png"):
        contact_sheet(tmp_path / name, "title", ["note"], rows_of(2))
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "b.png"]


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "x.png").mkdir()
    (tmp_path / "x.png" / "y").write_text("")
    for path in (tmp_path / "x.png", tmp_path / "nowhere" / "x.png"):
        with pytest.raises(GradbenchError, match=r"cannot write .*x\.png"):
            contact_sheet(path, "title", [], rows_of(1))
    assert [p.name for p in tmp_path.iterdir()] == ["x.png"]
