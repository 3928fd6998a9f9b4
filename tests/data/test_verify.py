"""What `verify` finds: good, partial and damaged copies of sets that are generated here."""

import numpy as np
import pytest

from gradbench.data.dataset import Dataset, DataSettings, MissingData
from gradbench.data.image_folders import Tree
from gradbench.data.verify import verify

CLASSES = ("left", "right", "top")


def arrays(count=30, seed=0, size=8, channels=3):
    """Return images of which no two are equal, and labels that go round."""
    images = np.random.default_rng(seed).integers(0, 256, (count, size, size, channels))
    return {"images": images.astype(np.uint8), "labels": np.arange(count) % 3}


def toy(**changes) -> Dataset:
    usual = {
        "name": "toy",
        "roles": {"train": "train", "test": "test"},
        "counts": {"train": 30, "test": 12},
        "classes": CLASSES,
        "shape": [3, 8, 8],
    }
    return Dataset(**(usual | changes))


def put(root, split="test", **changed):
    (root / "toy").mkdir(exist_ok=True)
    np.savez(root / "toy" / f"{split}.npz", **(arrays(12, seed=1) | changed))


def found(dataset, root) -> dict[tuple[str, str], tuple[str, str]]:
    """Return (verdict, detail) by (split, what), each of which stands there once."""
    checks = list(verify(dataset, DataSettings(root)))
    assert len({(c.split, c.subject) for c in checks}) == len(checks)
    return {(c.split, c.subject): (c.verdict, c.detail) for c in checks}


def test_a_good_set_has_nothing_that_differs(tmp_path):
    put(tmp_path, "train", **arrays())
    put(tmp_path)
    checks = found(toy(), tmp_path)
    assert {verdict for verdict, _ in checks.values()} == {"ok"}
    assert checks["train", "count"][1] == "30 images"
    assert checks["test", "form"][1] == "8x8 RGB, uint8"
    assert checks["test", "labels"][1] == "0 to 2"
    assert checks["test", "classes"][1] == "3 classes, 4 images each"
    assert checks["test", "repeats"][1] == "no image twice"
    assert checks["train, test", "overlap"][1] == "no test image is a training image"


def test_a_part_is_said_and_is_no_damage(tmp_path):
    put(tmp_path, **arrays(7))
    checks = found(toy(), tmp_path)
    assert checks["test", "count"] == ("note", "a part: 7 of 12 images")
    assert checks["test", "classes"] == ("ok", "3 classes, 2 to 3 images each")
    assert "differs" not in {verdict for verdict, _ in checks.values()}


def test_a_bound_of_the_official_number(tmp_path):
    put(tmp_path)
    says = found(toy(counts={}, least={"test": 13}), tmp_path)["test", "count"]
    assert says == ("note", "a part: 12 of at least 13 images")
    says = found(toy(counts={}, least={"test": 12}), tmp_path)["test", "count"]
    assert says == ("ok", "12 images, no official number is known")


def test_an_empty_class_is_damage_of_a_whole_copy_alone(tmp_path):
    put(tmp_path, labels=np.arange(12) % 2)
    assert found(toy(), tmp_path)["test", "classes"] == (
        "differs",
        "3 classes, 6 images each, 1 without any",
    )
    assert found(toy(counts={"test": 13}), tmp_path)["test", "classes"][0] == "note"
    assert found(toy(counts={}), tmp_path)["test", "classes"][0] == "note"


def test_files_that_cannot_be_read(tmp_path):
    from PIL import Image

    for label in ("a", "b"):
        (tmp_path / "pictures" / label).mkdir(parents=True)
        for number in range(3):
            pixels = np.full((5, 4, 3), 40 * number + (label == "b"), np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"pictures/{label}/{number}.png")
    tree = Tree(name="toy", roles={"challenge": "test"}, counts={"test": 6}, shape=[3, 8, 8],
                folders={"test": "pictures"})  # fmt: skip
    checks = found(tree, tmp_path)
    assert {verdict for verdict, _ in checks.values()} == {"ok"}
    assert checks["test", "form"][1] == "4x5 RGB, uint8"
    (tmp_path / "pictures/b/1.png").write_bytes(b"no picture")
    verdict, detail = found(tree, tmp_path)["test", "files"]
    assert verdict == "differs"
    assert "b/1.png" in detail


def test_nothing_here_is_a_sentence(tmp_path):
    with pytest.raises(MissingData, match="toy is not on this machine: put arrays at"):
        list(verify(toy(), DataSettings(tmp_path)))
    archives = [{"url": "http://nowhere/x.zip", "md5": "0" * 32}]
    with pytest.raises(MissingData, match="`gradbench data fetch toy`"):
        list(verify(toy(archives=archives), DataSettings(tmp_path)))
