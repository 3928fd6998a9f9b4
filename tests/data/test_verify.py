"""What `verify` finds: good, partial and damaged copies of sets that are generated here."""

import hashlib

import numpy as np
import pytest

from gradbench.data.catalogue import verify
from gradbench.data.dataset import Dataset, DataSettings
from gradbench.data.image_folders import Tree
from gradbench.data.torchvision_sets import TorchvisionSet
from gradbench.errors import MissingData

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


@pytest.mark.parametrize(
    ("changed", "what", "says"),
    [
        (arrays(13), "count", "13 of 12 images"),
        (arrays(12, size=9), "form", "9x9 RGB, uint8; the set: 8x8 RGB"),
        (arrays(12, channels=1), "form", "8x8 grey, uint8; the set: 8x8 RGB"),
        ({"labels": np.arange(12) % 4}, "labels", "toy/test has label 3 but 3 classes"),
        ({"images": np.zeros((12, 8, 8, 3), np.uint8)}, "repeats", "11 images are equal"),
    ],
)
def test_damage(tmp_path, changed, what, says):
    put(tmp_path, **changed)
    checks = found(toy(), tmp_path)
    verdict, detail = checks["test", what]
    assert verdict == "differs"
    assert detail.startswith(says)
    others = {key: v for key, (v, _) in checks.items() if key != ("test", what)}
    assert set(others.values()) == {"ok"}, others


def test_a_size_that_the_maker_of_a_copy_chose_is_no_damage(tmp_path):
    put(tmp_path, **arrays(12, size=9))
    assert found(toy(copy_note="resized"), tmp_path)["test", "form"][0] == "note"
    assert found(toy(counts={}), tmp_path)["test", "form"][0] == "note"


@pytest.mark.parametrize(("repeated", "verdict"), [(0, "ok"), (5, "note"), (6, "differs")])
def test_a_few_repeated_images_are_noted(tmp_path, repeated, verdict):
    changed = arrays(100)
    changed["images"][1 : repeated + 1] = changed["images"][0]
    put(tmp_path, **changed)
    checks = found(toy(counts={"test": 100}), tmp_path)
    assert checks["test", "repeats"][0] == verdict
    if repeated:
        assert checks["test", "repeats"][1].startswith(f"{repeated} images are equal")


@pytest.mark.parametrize(("shared", "verdict"), [(0, "ok"), (5, "note"), (6, "differs")])
def test_test_images_in_the_training_set(tmp_path, shared, verdict):
    train, test = arrays(120), arrays(100, seed=1)
    test["images"][:shared] = train["images"][20 : 20 + shared]
    put(tmp_path, "train", **train)
    put(tmp_path, **test)
    checks = found(toy(counts={"train": 120, "test": 100}), tmp_path)
    assert checks["train, test", "overlap"][0] == verdict
    if shared:
        assert checks["train, test", "overlap"][1] == f"{shared} test images are training images"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-300]),
        lambda path: path.write_bytes(b"no zip"),
        lambda path: path.write_bytes(path.read_bytes().replace(b"images.npy", b"imapes.npy")),
        lambda path: np.savez(path, images=arrays()["images"].astype("f4"), labels=np.arange(30)),
        lambda path: np.savez(path, images=arrays()["images"], labels=np.arange(29)),
        lambda path: np.savez(path, images=arrays()["images"][:0], labels=np.arange(0)),
    ],
)
def test_a_damaged_file_is_a_line_and_the_other_split_is_still_looked_at(tmp_path, spoil):
    put(tmp_path, "train", **arrays())
    put(tmp_path)
    spoil(tmp_path / "toy" / "train.npz")
    checks = found(toy(), tmp_path)
    verdict, detail = checks["train", "files"]
    assert verdict == "differs"
    assert "train.npz" in detail
    assert "\n" not in detail
    assert ("train", "count") not in checks
    assert checks["test", "count"][0] == "ok"


def test_restored_pixels_are_said(tmp_path):
    put(tmp_path, requantise=(np.arange(256) // 2 * 2).astype(np.uint8))
    verdict, detail = found(toy(), tmp_path)["test", "copy"]
    assert (verdict, detail[:13]) == ("note", "restored copy")


def test_tracks_need_names(tmp_path):
    put(tmp_path)
    assert found(toy(groups="track"), tmp_path)["test", "tracks"][0] == "differs"
    put(tmp_path, names=np.array([f"0/{i // 4}_{i}" for i in range(12)]))
    assert found(toy(groups="track"), tmp_path)["test", "tracks"] == ("ok", "3 tracks")
    put(tmp_path, names=np.array([str(i) for i in range(12)]))
    assert found(toy(groups="track"), tmp_path)["test", "tracks"] == ("ok", "no frames repeat")


def idx(values: np.ndarray) -> bytes:
    """Return an array of bytes in the format of MNIST's files."""
    head = bytes([0, 0, 8, values.ndim])
    return head + b"".join(n.to_bytes(4, "big") for n in values.shape) + values.tobytes()


def mnist(root, **changes) -> TorchvisionSet:
    """Return a set in MNIST's layout with 12 test images of our own."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    made = arrays(12, size=28, channels=1)
    files = {
        "MNIST/raw/t10k-images-idx3-ubyte": idx(made["images"][..., 0]),
        "MNIST/raw/t10k-labels-idx1-ubyte": idx(made["labels"].astype(np.uint8)),
    }
    for name, content in files.items():
        (root / name).write_bytes(content)
    for split in ("train-images-idx3", "train-labels-idx1"):
        (raw / f"{split}-ubyte").write_bytes(b"")  # torchvision wants to see them
    return TorchvisionSet(
        name="mnist",
        roles={"test": "test"},
        counts={"test": 12},
        shape=[1, 28, 28],
        library="MNIST",
        arguments={"test": {"train": False}},
        files={"test": list(files)},
        md5={name: hashlib.md5(content).hexdigest() for name, content in files.items()},
        **changes,
    )


def test_published_files_are_compared_with_their_checksums(tmp_path):
    dataset = mnist(tmp_path)
    checks = found(dataset, tmp_path)
    assert checks["test", "checksum"][0] == "ok"
    assert checks["test", "count"] == ("ok", "12 images")
    path = tmp_path / "MNIST/raw/t10k-images-idx3-ubyte"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    checks = found(dataset, tmp_path)
    assert checks["test", "checksum"] == ("differs", f"{path} is not the published file")
    path.write_bytes(content[:-5])
    assert found(dataset, tmp_path)["test", "files"][0] == "differs"


def test_files_that_cannot_be_read(tmp_path):
    from PIL import Image

    for label in ("a", "b"):
        (tmp_path / "pictures" / label).mkdir(parents=True)
        for number in range(3):
            pixels = np.full((5, 4, 3), 40 * number + (label == "b"), np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"pictures/{label}/{number}.png")
    tree = Tree(name="toy", roles={"challenge": "test"}, counts={"test": 6}, shape=[3, 8, 8],
                files={"test": "pictures"})  # fmt: skip
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
