"""Sheets: every panel's own pixels stand where the layout says, nothing overlaps."""

import itertools

import numpy as np
import pytest
from PIL import Image

from gradbench.errors import GradbenchError
from gradbench.report import style
from gradbench.report.lettering import BODY, HEAD, SMALL, Lettering
from gradbench.report.sheet import DPI, Panel, Row, enlarged, magnification, sheet


def noise(size=8, channels=3, seed=0):
    shape = (channels, size, size) if isinstance(size, int) else (channels, *size)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def read(path) -> np.ndarray:
    return np.asarray(Image.open(path))


def rows_of(count, columns=3, size=8, **more):
    return [
        Row(f"class {i}", [Panel(noise(size, seed=10 * i + j), **more) for j in range(columns)])
        for i in range(count)
    ]


@pytest.mark.parametrize(("size", "factor"), [(8, 16), (28, 4), (32, 4), (64, 2), (65, 1), (96, 1),
                                               (256, 1)])  # fmt: skip
def test_every_pixel_becomes_a_square_of_equal_pixels(size, factor):
    image = noise(size)
    large = enlarged(image)
    assert large.shape == (factor * size, factor * size, 3)
    assert np.array_equal(large[::factor, ::factor].transpose(2, 0, 1), image)
    assert np.array_equal(large, np.kron(large[::factor, ::factor], np.ones((factor, factor, 1))))


def test_grey_is_shown_as_grey_and_other_proportions_are_kept():
    image = noise((10, 20), channels=1)
    large = enlarged(image)
    assert large.shape == (60, 120, 3)
    assert np.array_equal(large[::6, ::6], np.repeat(image[0][:, :, None], 3, axis=2))


def test_large_images_are_reduced():
    large = enlarged(np.full((3, 600, 300), 77, np.uint8))
    assert large.shape == (256, 128, 3)
    assert (large == 77).all()
    assert magnification((3, 600, 300)) == "300x600, reduced"


@pytest.mark.parametrize("count", [1, 2, 7, 30])
def test_panels_hold_the_pixels_of_their_images(tmp_path, count):
    rows = rows_of(count, caption="cat\n97 %")
    found = sheet(tmp_path / "x.png", "title", ["note"], rows, ["a", "b", "c"])
    picture = read(tmp_path / "x.png")
    assert picture.shape == (found.size[1], found.size[0], 3)
    assert set(found.boxes) == set(itertools.product(range(count), range(3)))
    for (i, j), (x, y, width, height) in found.boxes.items():
        assert np.array_equal(picture[y : y + height, x : x + width],
                              enlarged(rows[i].panels[j].pixels))  # fmt: skip


def test_panels_captions_and_labels_do_not_overlap(tmp_path):
    rows = rows_of(9, caption="a long caption that takes lines", size=32)
    found = sheet(tmp_path / "x.png", "title", ["note"], rows, ["clean", "perturbation ×10", "x"])
    letters = Lettering(DPI)
    taken = np.zeros(found.size[::-1], int)
    for x, y, width, height in found.boxes.values():
        taken[y : y + height, x : x + width] += 1
    for x, y, text, size, across, down, _ in found.texts:
        width, lines = letters.width(text, size), letters.baselines(text, size, y, down)
        left = x - {"left": 0, "center": width // 2, "right": width}[across]
        top = round(lines[0][0] - 0.75 * size * DPI / 72)
        assert left >= 0
        assert top >= 0
        taken[top : round(lines[-1][0]), left : left + width] += 1
    assert taken.max() == 1
    assert not taken[:, -20:].any()
    assert not taken[-20:].any()


def test_missing_panels_leave_their_place_white(tmp_path):
    rows = [Row("one", [Panel(noise()), None]), Row("two", [None, Panel(noise(seed=1))])]
    found = sheet(tmp_path / "x.png", "title", [], rows)
    assert set(found.boxes) == {(0, 0), (1, 1)}
    picture = read(tmp_path / "x.png")
    (_, y, width, height), (right, *_) = found.boxes[0, 0], found.boxes[1, 1]
    assert (picture[y : y + height, right : right + width] == 255).all()


def test_a_caption_is_coloured_where_it_is_stressed(tmp_path):
    orange = np.array([int(style.COLOURS[1][i : i + 2], 16) for i in (1, 3, 5)])
    for stressed in (True, False):
        rows = [Row("", [Panel(np.zeros((1, 8, 8), np.uint8), "cat 97 %", stressed)])]
        found = sheet(tmp_path / "x.png", "title", [], rows)
        x, y, width, height = found.boxes[0, 0]
        below = read(tmp_path / "x.png")[y + height + 2 :, x : x + width].reshape(-1, 3)
        assert bool((below == orange).all(1).any()) is stressed


def test_many_rows_are_folded_into_blocks(tmp_path):
    for count in (10, 30, 60):
        width, height = sheet(tmp_path / "x.png", "t", [], rows_of(count, 2)).size
        assert 0.6 < width / height < 3
    found = sheet(tmp_path / "x.png", "t", [], rows_of(12, 1)).boxes
    assert len({x for x, *_ in found.values()}) > 1
    places = [found[row, 0][:2] for row in range(12)]
    assert places == sorted(places), "down the first block, then down the next"


def test_equal_input_gives_equal_bytes_and_nothing_else_is_left(tmp_path):
    for name in ("a.png", "b.png"):
        sheet(tmp_path / name, "title", ["note"], rows_of(2))
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "b.png"]


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "x.png").mkdir()
    (tmp_path / "x.png" / "y").write_text("")
    with pytest.raises(GradbenchError, match=r"cannot write .*x\.png"):
        sheet(tmp_path / "x.png", "title", [], rows_of(1))
    with pytest.raises(GradbenchError, match="cannot write"):
        sheet(tmp_path / "nowhere" / "x.png", "title", [], rows_of(1))
    assert [p.name for p in tmp_path.iterdir()] == ["x.png"]


def test_text_is_broken_where_it_fits():
    letters = Lettering(DPI)
    text = "end of no overtaking by lorries and buses"
    lines = letters.wrapped(text, 160, BODY).split("\n")
    assert " ".join(lines) == text
    assert all(letters.width(line, BODY) <= 160 for line in lines)
    assert len(lines) == 4
    assert letters.wrapped("one\ntwo", 230, BODY) == "one\ntwo"
    assert letters.wrapped("cure_like_decolorization", 230, BODY) == "cure_like_\ndecolorization"
    cut = letters.wrapped("internationalisation", 100, SMALL)
    assert cut.endswith("…")
    assert letters.width(cut, SMALL) <= 100
    assert letters.width(text, HEAD) > letters.width(text, BODY) > letters.width(text, SMALL)
    assert letters.height("a\nb", BODY) > 1.5 * letters.height("a", BODY)


def test_dollars_are_no_formula(tmp_path):
    found = sheet(tmp_path / "x.png", "5$ and 6$_x", ["$\\frac{"], rows_of(1))
    assert found.size[0] > 0
