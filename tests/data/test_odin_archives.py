"""TinyImageNet and LSUN in three variants that never mix, and the other archives of ODIN."""

import numpy as np
import pytest
from _data_sets import build, picture
from PIL import Image

from gradbench.challenges.other_set import OtherSet
from gradbench.config import load_member
from gradbench.data.resample import resize_to
from gradbench.errors import GradbenchError, MissingData

ARCHIVES = {
    "tiny_imagenet_odin_resize": "Imagenet_resize/Imagenet_resize",
    "tiny_imagenet_odin_crop": "Imagenet/test",
    "lsun_odin_resize": "LSUN_resize/LSUN_resize",
    "lsun_odin_crop": "LSUN/test",
    "isun": "iSUN/iSUN_patches",
}
"""Where the images of each published archive lie once it is unpacked."""
VARIANTS = (*ARCHIVES, "tiny_imagenet", "lsun")


def originals(root):
    """Lay out original photographs of Tiny ImageNet and LSUN."""
    top = root / "tiny-imagenet-200"
    picture(top / "val" / "images" / "val_0.JPEG", (64, 64))
    (top / "wnids.txt").write_text("n01\n")
    (top / "words.txt").write_text("n01\tgoose\n")
    (top / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn01\t0\t0\t1\t1\n")
    picture(root / "lsun_original" / "bridge" / "a.webp", (256, 300))


def lay(root, name):
    """Lay out the published files of one variant alone."""
    if name in ARCHIVES:
        picture(root / ARCHIVES[name] / "a.png", (32, 32))
    else:
        originals(root)


@pytest.mark.parametrize("name", ARCHIVES)
def test_archives_are_read_as_they_unpack(tmp_path, offline, name):
    lay(tmp_path, name)
    picture(tmp_path / ARCHIVES[name] / ".b.png", (32, 32))
    dataset = build(name)
    found = dataset.load("challenge", offline)
    assert (len(found), found.labels.tolist(), found.status) == (1, [0], "part")
    assert "ODIN archive" in found.note
    assert dataset.processing_of(found) is None
    assert dataset.archives[0]["md5"]


@pytest.mark.parametrize("name", VARIANTS)
def test_no_variant_is_taken_for_another(tmp_path, offline, name):
    lay(tmp_path, name)
    here = {other for other in VARIANTS if build(other).ready("challenge", offline) is None}
    assert here == ({name} if name in ARCHIVES else {"tiny_imagenet", "lsun"})
    for other in set(VARIANTS) - here:
        with pytest.raises(MissingData, match=f"{other} is not on this machine"):
            build(other).load("challenge", offline)


@pytest.mark.parametrize(("name", "owner"), [("lsun_odin_crop", "lsun"), ("isun", "isun")])
def test_images_of_another_size_are_not_the_archive(tmp_path, offline, name, owner):
    lay(tmp_path, name)
    picture(tmp_path / ARCHIVES[name] / "z.png", (36, 36))
    with pytest.raises(GradbenchError) as fault:
        build(name).load("challenge", offline)
    assert f"not the archive of {name}: 1 of 2 images are not 32x32" in str(fault.value)
    assert "z.png of 36x36" in str(fault.value)
    assert str(fault.value).endswith(f"original photographs belong to {owner}")


def test_regenerated_sets_say_how(tmp_path, offline):
    originals(tmp_path)
    dataset = build("lsun", counts={"test": 1})
    challenge = OtherSet(**load_member("challenge", "lsun") | {"mode": "crop"} | {"_target_": None})
    made = challenge.prepare(dataset.load("challenge", offline), (3, 32, 32), "lsun")
    assert made.status == "regenerated"
    assert made.note == "256x300 -> 32x32 bilinear antialiased, centre crop"
    assert dataset.processing_of(made) == [{"shape": [256, 218]}]


def test_a_regenerated_image_is_the_reduction_of_its_original(tmp_path, offline):
    noise = np.random.default_rng(0).integers(0, 256, (300, 256, 3), dtype=np.uint8)
    place = tmp_path / "lsun_original" / "a.png"
    place.parent.mkdir()
    Image.fromarray(noise).save(place)
    found = resize_to(build("lsun").load("challenge", offline), (3, 32, 32))
    wanted = Image.fromarray(noise).resize((32, 32), Image.Resampling.BILINEAR)
    assert np.array_equal(found.images[:1][0], np.asarray(wanted).transpose(2, 0, 1))


def test_empty_files_of_notmnist_are_left_out(tmp_path, offline):
    folder = tmp_path / "notMNIST_small"
    for letter in "AF":
        (folder / letter).mkdir(parents=True)
        Image.new("L", (28, 28), 7).save(folder / letter / "good.png")
    for name in load_member("dataset", "notmnist")["damaged"]:
        (folder / name).write_bytes(b"")
    found = build("notmnist").load("challenge", offline)
    assert (len(found), found.classes, found.labels.tolist()) == (2, ("A", "F"), [0, 1])
    assert found.images[:].max() == 7
