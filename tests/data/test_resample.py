import numpy as np
import pytest
import torch
from PIL import Image

from gradbench.data.files import FileImages, open_files
from gradbench.data.imageset import ImageSet, LazyImages, source_ids
from gradbench.data.resample import resize_to, round_trip
from gradbench.errors import GradbenchError


def made(count=5, shape=(3, 12, 12), lazy=False, **more):
    pixels = np.random.default_rng(3).integers(0, 256, (count, *shape), dtype=np.uint8)
    images = LazyImages(lambda rows: pixels[rows], pixels.shape) if lazy else pixels
    return ImageSet(
        "set", "test", images, np.arange(count), source_ids("set", "test", count), **more
    )


def test_the_same_shape_comes_back_unchanged():
    images = made()
    assert resize_to(images, (3, 12, 12)) is images


@pytest.mark.parametrize(
    ("filter", "antialias"), [("bilinear", True), ("bilinear", False), ("bicubic", True)]
)
@pytest.mark.parametrize("size", [(5, 7), (12, 4), (24, 30)])
def test_agrees_with_torch_up_to_rounding(filter, antialias, size):
    images = made()
    images.images[:] = images.images // 2 + 64  # nothing is cut off at 0 or 255 on the way
    wanted = torch.nn.functional.interpolate(
        torch.from_numpy(images.images).double(), size, mode=filter, antialias=antialias
    )
    found = resize_to(images, (3, *size), filter, antialias).images
    assert np.abs(found - wanted.numpy()).max() <= 1.5


def test_box_averages_up_to_rounding():
    images = made(shape=(1, 8, 8))
    blocks = images.images.reshape(5, 1, 4, 2, 4, 2).mean((3, 5))
    found = resize_to(images, (1, 4, 4), "box").images
    assert np.abs(found - blocks).max() <= 1


def test_grey_becomes_three_equal_channels_and_stays_official():
    images = made(shape=(1, 6, 6))
    fitted = resize_to(images, (3, 6, 6))
    assert np.array_equal(fitted.images, np.repeat(images.images, 3, 1))
    assert (fitted.status, fitted.note) == ("official", "grey -> RGB")


def test_colour_becomes_luma():
    images = made()
    fitted = resize_to(images, (1, 12, 12))
    luma = np.tensordot(images.images, [0.299, 0.587, 0.114], (1, 0))
    assert np.abs(fitted.images[:, 0] - luma).max() <= 0.51
    assert (fitted.status, fitted.note) == ("regenerated", "RGB -> grey")


def test_the_note_says_what_was_done_and_the_status_follows():
    fitted = resize_to(made(shape=(1, 6, 6)), (3, 12, 12))
    assert fitted.note == "6x6 -> 12x12 bilinear antialiased; grey -> RGB"
    assert fitted.status == "regenerated"
    part = resize_to(made(status="part", note="5 of 9 images"), (3, 6, 6), "nearest")
    assert (part.status, part.note) == ("part", "5 of 9 images; 12x12 -> 6x6 nearest")
    plain = resize_to(made(status="stand_in"), (3, 6, 6), antialias=False)
    assert (plain.status, plain.note) == ("stand_in", "12x12 -> 6x6 bilinear")


def test_crop_takes_the_centre_and_resize_takes_all():
    images = made(shape=(3, 8, 12))
    cropped = resize_to(images, (3, 8, 8), mode="crop")
    assert np.array_equal(cropped.images, images.images[..., 2:10])
    assert cropped.note == "12x8 -> 8x8 bilinear antialiased, centre crop"
    assert "proportions not kept" in resize_to(images, (3, 8, 8)).note


@pytest.mark.parametrize("lazy", [True, False])
def test_bits_do_not_depend_on_the_batch(lazy):
    whole = resize_to(made(7, lazy=lazy), (1, 5, 5), "lanczos").images[slice(None)]
    single = [
        resize_to(made(7, lazy=lazy).select(np.array([i])), (1, 5, 5), "lanczos").images[
            slice(None)
        ]
        for i in range(7)
    ]
    assert np.array_equal(whole, np.concatenate(single))


def test_wrong_requests_are_refused():
    with pytest.raises(GradbenchError, match="did you mean bilinear"):
        resize_to(made(), (3, 6, 6), "bilinar")
    with pytest.raises(GradbenchError, match="mode of resampling"):
        resize_to(made(), (3, 6, 6), mode="pad")
    with pytest.raises(GradbenchError, match="always antialiases"):
        resize_to(made(), (3, 6, 6), "lanczos", antialias=False)
    floats = np.zeros((2, 3, 4, 4), np.float32)
    images = ImageSet("set", "test", floats, np.arange(2), source_ids("set", "test", 2))
    with pytest.raises(GradbenchError, match="1/255 grid"):
        resize_to(images, (3, 6, 6))


@pytest.fixture
def files(tmp_path):
    draw = np.random.default_rng(4)
    paths = []
    for number, size in enumerate([(10, 8), (16, 16), (16, 16)]):
        pixels = draw.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(pixels).save(paths[-1])
    images = open_files(paths, None, 2)
    return ImageSet("files", "test", images, np.arange(3), source_ids("files", "test", 3))


def test_files_are_resampled_once_from_the_originals(files):
    assert files.shape == (3, 16, 16)  # the commonest size
    twice = resize_to(resize_to(files, (3, 4, 4)), (3, 16, 16))
    assert np.array_equal(twice.images[1:], files.images[1:])
    fitted = resize_to(files.select(np.array([1, 0])), (3, 16, 16))
    assert isinstance(fitted.images, FileImages)
    assert "10x8 to 16x16 -> 16x16 bilinear antialiased, proportions not kept" in fitted.note
    assert resize_to(fitted, (3, 16, 16)) is fitted
    same = files.select(np.array([1, 2]))
    assert resize_to(same, (3, 16, 16)) is same


def test_round_trip_is_none_for_untouched_sets():
    images = made()
    assert round_trip(images, (3, 12, 12)) is None
    assert round_trip(images, (3, 12, 12), [{"shape": [12, 12]}]) is None


def test_round_trip_goes_through_every_step():
    images = made(status="part", note="a note", groups=np.array(list("aabbc")))
    steps = [{"shape": [20, 20], "jpeg": 75}, {"shape": [24, 24], "filter": "lanczos"}]
    found = round_trip(images, (3, 24, 24), steps)
    assert found.note == (
        "a note; round trip: 20x20 bilinear antialiased, JPEG 75, 24x24 lanczos antialiased, "
        "12x12 bilinear antialiased"
    )
    assert found.status == "generated"
    assert found.shape == images.shape
    for name in ("labels", "sources", "groups"):
        assert np.array_equal(getattr(found, name), getattr(images, name))
    one = round_trip(images.select(np.array([3])), (3, 24, 24), steps, workers=1)
    assert np.array_equal(one.images[0], found.images[3])


def test_round_trip_by_resampling_alone_is_that_of_fit_to():
    images = made()
    found = round_trip(images, (1, 24, 24), filter="box")
    there = resize_to(images, (1, 24, 24), "bilinear")
    assert np.array_equal(found.images, resize_to(there, (3, 12, 12), "box").images)


def test_round_trip_by_jpeg_alone_changes_smooth_images_little():
    ramp = np.linspace(0, 255, 16 * 16).astype(np.uint8).reshape(1, 1, 16, 16)
    images = ImageSet("set", "test", ramp, np.zeros(1, int), source_ids("set", "test", 1))
    worse, better = (round_trip(images, (1, 16, 16), [{"jpeg": q}]).images for q in (10, 95))
    assert 0 < np.abs(better.astype(int) - ramp).mean() < np.abs(worse.astype(int) - ramp).mean()


def test_round_trip_in_crop_mode_goes_through_the_part_that_is_kept():
    images = made()
    assert round_trip(images, (3, 12, 20), mode="crop") is None
    assert "24x24" in round_trip(images, (3, 24, 30), mode="crop").note


def test_wrong_processing_is_refused():
    with pytest.raises(GradbenchError, match=r"did you mean dataset\.processing\[0\]\.shape"):
        round_trip(made(), (3, 12, 12), [{"size": 3}])
    with pytest.raises(GradbenchError, match=r"processing\[0\]\.jpeg=101: write"):
        round_trip(made(), (3, 12, 12), [{"jpeg": 101}])
