"""CURE-TSR: names, folders, counts, partial copies, twins; the images are drawn by `_cure`."""

import shutil

import numpy as np
import pytest
from _cure import draw, plant
from _data_sets import build
from PIL import Image

from gradbench.challenges.base import ImageRequest
from gradbench.challenges.cure_tsr import CureChallenge
from gradbench.data.cure_tsr import FOLDERS, folder_of
from gradbench.data.roles import stratified_subset
from gradbench.errors import GradbenchError, MissingData


def asked(clean, offline, level=3, dataset=None):
    return ImageRequest("noise", level, clean, dataset or build("cure_tsr"), offline, 0)


# names


def test_every_challenge_type_has_the_number_of_the_published_list():
    named = "Decolorization LensBlur CodecError Darkening DirtyLens Exposure GaussianBlur Noise "
    named += "Rain Shadow Snow Haze"
    assert [folder_of(n, 1) for n in range(13)] == [
        "ChallengeFree",
        *(f"{name}-1" for name in named.split()),
    ]


@pytest.mark.parametrize(
    "name",
    [
        "01_01_08_03_0001.png",
        "01_1_08_03_0001.bmp",
        "03_01_08_03_0001.bmp",
        "01_15_08_03_0001.bmp",
        "01_01_13_03_0001.bmp",
        "01_01_08_06_0001.bmp",
        "01_01_08_00_0001.bmp",
        "01_01_00_01_0001.bmp",
    ],
)
def test_a_name_that_breaks_the_grammar_is_one_sentence(tmp_path, offline, name):
    top = plant(tmp_path, kinds=range(1, 2), challenges={"noise": (3,)})
    draw(1, 1).save(top / "Noise-3" / name)
    with pytest.raises(GradbenchError) as fault:
        build("cure_tsr").challenged("test", "noise", 3, offline)
    said = str(fault.value)
    assert said.startswith(f"{top / 'Noise-3' / name} breaks the grammar of CURE-TSR, ")
    assert "sequenceType_signType_challengeType_challengeLevel_Index.bmp" in said
    assert "level 01 to 05" in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("name", "belongs"),
    [
        ("01_01_08_02_0009.bmp", "its name belongs to Noise-2"),
        ("01_01_09_03_0009.bmp", "its name belongs to Rain-3"),
        ("01_01_00_00_0009.bmp", "its name belongs to ChallengeFree"),
        ("02_01_08_03_0009.bmp", "its name belongs to Noise-3 of the unreal world"),
    ],
)
def test_a_name_in_the_wrong_folder_is_one_sentence(tmp_path, offline, name, belongs):
    top = plant(tmp_path, kinds=range(1, 2), challenges={"noise": (3,)})
    draw(1, 1).save(top / "Noise-3" / name)
    with pytest.raises(GradbenchError, match="lies in the wrong folder") as fault:
        build("cure_tsr").challenged("test", "noise", 3, offline)
    assert belongs in str(fault.value)


# what a copy holds


def test_a_tree_is_read_as_it_is_named(tmp_path, offline):
    for split in ("Train", "Test"):
        plant(tmp_path, split)
    (tmp_path / "CURE-TSR" / "Real_Test" / "ChallengeFree" / "Thumbs.db").write_bytes(b"x")
    dataset = build("cure_tsr")
    assert dataset.ready("train", offline) is None
    test = dataset.load("test", offline)
    assert (len(test), test.shape, len(test.classes)) == (56, (3, 32, 32), 14)
    assert np.bincount(test.labels).tolist() == [4] * 14
    assert test.classes[test.labels[-1]] == "parking"
    assert test.groups[-1] == "cure_tsr/test/01_14_0004"
    wanted = draw(14, 4).resize((32, 32), Image.Resampling.BILINEAR)
    assert np.array_equal(test.images[55:][0], np.asarray(wanted).transpose(2, 0, 1))


@pytest.mark.parametrize("home", ["CURE-TSR", "cure_tsr", "."])
def test_the_set_is_found_where_it_was_unpacked(tmp_path, offline, home):
    plant(tmp_path / "made", kinds=range(1, 3))
    (tmp_path / home).mkdir(exist_ok=True)
    shutil.move(tmp_path / "made" / "CURE-TSR" / "Real_Test", tmp_path / home)
    assert len(build("cure_tsr").load("test", offline)) == 8


def test_a_part_is_counted_and_called_one(tmp_path, offline):
    plant(tmp_path, kinds=range(2, 5))
    test = build("cure_tsr").load("test", offline)
    assert test.status == "part"
    assert test.note.startswith(
        "12 of at least 3,329 images; no official number of images is known; 3 of 14 sign types; "
    )
    assert "-> 32x32 bilinear antialiased" in test.note
    whole = build("cure_tsr", least={}).load("test", offline)
    assert whole.status == "regenerated"


def test_the_unreal_world_lies_in_folders_of_its_own(tmp_path, offline):
    plant(tmp_path, kinds=range(1, 3))
    assert build("cure_tsr_unreal").ready("test", offline) is not None
    plant(tmp_path, kinds=range(1, 4), world="Unreal")
    found = build("cure_tsr_unreal").load("challenge", offline)
    assert (len(found), found.name) == (12, "cure_tsr_unreal")
    assert found.groups[0] == "cure_tsr_unreal/test/02_01_0001"


def test_an_empty_copy_is_one_sentence(tmp_path, offline):
    with pytest.raises(MissingData, match=r"CURE-TSR/Real_Test/ChallengeFree"):
        build("cure_tsr").load("test", offline)
    (tmp_path / "CURE-TSR" / "Real_Test" / "ChallengeFree").mkdir(parents=True)
    with pytest.raises(MissingData, match=r"ChallengeFree holds no images: .*_Index\.bmp"):
        build("cure_tsr").load("test", offline)


# challenges


def test_every_level_is_read_and_knows_its_twins(tmp_path, offline):
    plant(tmp_path, challenges={"noise": (1, 2, 3, 4, 5)})
    dataset = build("cure_tsr")
    clean = dataset.load("test", offline)
    means = []
    for level in (1, 2, 3, 4, 5):
        made = CureChallenge("noise").find(asked(clean, offline, level))
        assert made.sources.tolist() == clean.sources.tolist()
        assert made.groups.tolist() == clean.groups.tolist()
        assert made.labels.tolist() == clean.labels.tolist()
        assert (made.shape, made.status) == (clean.shape, "part")
        means.append(made.images[:].mean() / clean.images[:].mean())
    np.testing.assert_allclose(means, [0.9, 0.8, 0.7, 0.6, 0.5], atol=0.02)


def test_only_twins_of_measured_images_are_taken(tmp_path, offline):
    top = plant(tmp_path, challenges={"noise": (3,)})
    (top / "Noise-3" / "01_14_08_03_0002.bmp").unlink()
    draw(1, 99).save(top / "Noise-3" / "01_01_08_03_0099.bmp")  # without a twin
    dataset = build("cure_tsr", least={})
    clean = dataset.load("test", offline)
    made = CureChallenge("noise").find(asked(clean, offline))
    assert len(made) == 55
    assert set(made.sources) == set(clean.sources) - {"cure_tsr/test/53"}
    assert made.status == "part"
    assert made.note.startswith("twins of 55 of 56 images of ChallengeFree; ")
    limited = stratified_subset(clean, 28)
    made = CureChallenge("noise").find(asked(limited, offline))
    assert set(made.sources) <= set(limited.sources)
    other = limited.select(np.arange(28)[limited.labels == 0])
    shutil.rmtree(top / "Noise-3")
    plant(tmp_path, kinds=range(2, 3), challenges={"noise": (3,)})
    with pytest.raises(MissingData, match="none of the 4 images of Noise-3 is a twin of the"):
        CureChallenge("noise").find(asked(other, offline))


def test_a_folder_that_is_not_there_is_told(tmp_path, offline):
    top = plant(tmp_path, kinds=range(1, 3), challenges={"noise": (3,)})
    clean = build("cure_tsr").load("test", offline)
    with pytest.raises(MissingData, match=f"has no folder {top / 'Noise-4'}"):
        CureChallenge("noise").find(asked(clean, offline, 4))
    (top / "Rain-3").mkdir()
    with pytest.raises(MissingData, match="Rain-3 holds no images"):
        CureChallenge("rain").find(asked(clean, offline))


def test_settings_that_there_are_not(offline):
    with pytest.raises(GradbenchError, match=r"'fog'.*valid choices are .*haze"):
        CureChallenge("fog")
    with pytest.raises(GradbenchError, match="no level 6: choose from 1, 2, 3, 4, 5"):
        CureChallenge("noise").check_level(6)
    with pytest.raises(GradbenchError, match="no challenge for cifar10: the suite cure_like"):
        CureChallenge("noise").check_dataset(build("cifar10"))
    CureChallenge("noise").check_dataset(build("cure_tsr"))
    CureChallenge("noise", dataset="cure_tsr_unreal").check_dataset(build("cure_tsr_unreal"))
    with pytest.raises(GradbenchError, match="cure_tsr world=dream"):
        build("cure_tsr", world="dream")
    assert len(FOLDERS) == 12
