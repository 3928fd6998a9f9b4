"""The archive of CIFAR-10-C as a data set: small copies of our own in its layout."""

import hashlib

import numpy as np
import pytest

from gradbench.config import group_files, load_member
from gradbench.data.catalogue import build_dataset, list_datasets, verify
from gradbench.data.cifar10c import Cifar10C
from gradbench.data.dataset import DataSettings
from gradbench.errors import GradbenchError

EACH = 20


def arrays() -> tuple[np.ndarray, np.ndarray]:
    images = np.random.default_rng(0).integers(0, 256, (5 * EACH, 32, 32, 3), dtype=np.uint8)
    return images, np.tile(np.arange(EACH) % 10, 5).astype(np.uint8)


@pytest.fixture
def root(tmp_path):
    images, labels = arrays()
    (tmp_path / "CIFAR-10-C").mkdir()
    np.save(tmp_path / "CIFAR-10-C/fog.npy", images)
    np.save(tmp_path / "CIFAR-10-C/labels.npy", labels)
    return tmp_path


def toy(root, **changes) -> Cifar10C:
    files = {name: root / f"CIFAR-10-C/{name}.npy" for name in ("fog", "labels")}
    usual = {
        "name": "cifar10c",
        "roles": {"challenge": ["fog", "snow"]},
        "counts": {"fog": 5 * EACH, "snow": 5 * EACH},
        "classes": [str(i) for i in range(10)],
        "shape": [3, 32, 32],
        "md5": {
            f"CIFAR-10-C/{name}.npy": hashlib.md5(path.read_bytes()).hexdigest()
            for name, path in files.items()
        },
    }
    return Cifar10C(**(usual | changes))


def found(dataset, root) -> dict[str, tuple[str, str]]:
    return {c.subject: (c.verdict, c.detail) for c in verify(dataset, DataSettings(root))}


def test_a_family_is_read_and_checked(root):
    dataset, settings = toy(root), DataSettings(root)
    assert [dataset.is_local(split, settings) for split in ("fog", "snow")] == [True, False]
    images = dataset.load("challenge", settings)
    pixels, labels = arrays()
    assert np.array_equal(images.images[3:60], pixels[3:60].transpose(0, 3, 1, 2))
    assert np.array_equal(images.labels, labels)
    checks = found(dataset, root)
    assert checks["checksum"] == ("ok", f"2 files of {root / 'CIFAR-10-C'} as published")
    assert checks["count"] == ("ok", "100 images")
    assert checks["levels"] == ("ok", "five, 20 images each")
    assert {verdict for verdict, _ in checks.values()} == {"ok"}


def spoil_labels(folder):
    labels = arrays()[1]
    labels[EACH] = 9
    np.save(folder / "labels.npy", labels)


@pytest.mark.parametrize(
    ("spoil", "what", "says"),
    [
        (spoil_labels, "levels", "the labels are not the same at all levels"),
        (lambda f: np.save(f / "labels.npy", arrays()[1][:-1]), "files", "(99,) uint8 for 100"),
        (lambda f: np.save(f / "fog.npy", arrays()[0].astype("f4")), "files", "must be N×H×W×3"),
        (lambda f: (f / "fog.npy").write_bytes(b"nothing"), "files", "not a whole .npy file"),
        (
            lambda f: (f / "fog.npy").write_bytes((f / "fog.npy").read_bytes()[:-9]),
            "files",
            "not a whole .npy file",
        ),
    ],
)
def test_damage(root, spoil, what, says):
    dataset = toy(root)
    spoil(root / "CIFAR-10-C")
    checks = found(dataset, root)
    assert checks["checksum"][0] == "differs"
    assert checks[what][0] == "differs"
    assert says in checks[what][1]


def test_rows_that_are_no_five_levels(root):
    images, labels = arrays()
    np.save(root / "CIFAR-10-C/fog.npy", images[:-1])
    np.save(root / "CIFAR-10-C/labels.npy", labels[:-1])
    checks = found(toy(root, md5={}), root)
    assert checks["levels"] == ("differs", "99 images are not five equal levels")
    assert checks["count"] == ("note", "a part: 99 of 100 images")


def test_the_set_that_is_shipped_is_that_of_the_challenge(root):
    shipped = build_dataset("cifar10c")
    families = shipped.all_splits()
    assert sorted(families) == sorted(load_member("challenge", "cifar10c")["members"])
    assert set(families) <= set(group_files("challenge"))
    assert set(shipped.md5) == {f"CIFAR-10-C/{name}.npy" for name in (*families, "labels")}
    assert set(shipped.counts.values()) == {50000}
    (entry,) = [e for e in list_datasets(DataSettings(root)) if e.name == "cifar10c"]
    assert (entry.summary, entry.status) == ("1 of 19 splits, 100 images", "part")
    assert (entry.hosts, entry.size) == (("zenodo.org",), 2918471680)


def test_a_damaged_array_is_listed_as_such(root):
    (root / "CIFAR-10-C/fog.npy").write_bytes(b"nothing")
    with pytest.raises(GradbenchError, match="not a whole"):
        toy(root).count("fog", DataSettings(root))
    (entry,) = [e for e in list_datasets(DataSettings(root)) if e.name == "cifar10c"]
    assert entry.status == "damaged"
