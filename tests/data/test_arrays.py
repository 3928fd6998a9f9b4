import numpy as np
import pytest

from gradbench.data.loading import read_npz
from gradbench.errors import GradbenchError

IMAGES = np.random.default_rng(1).integers(0, 256, (5, 3, 4, 3), dtype=np.uint8)
LABELS = np.arange(5)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
def test_reads_images_as_n_c_h_w(tmp_path, save, order):
    save(tmp_path / "x.npz", images=np.asarray(IMAGES, order=order), labels=LABELS.astype("i4"))
    raw = read_npz(tmp_path / "x.npz")
    assert np.array_equal(raw.images, IMAGES.transpose(0, 3, 1, 2))
    assert raw.images.flags.c_contiguous
    assert raw.labels.tolist() == [0, 1, 2, 3, 4]


def test_blocks_do_not_change_the_result(tmp_path):
    many = np.random.default_rng(2).integers(0, 256, (2100, 2, 3, 1), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", images=many)
    assert np.array_equal(read_npz(tmp_path / "x.npz").images, many.transpose(0, 3, 1, 2))


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"labels": LABELS}, "no array 'images'"),
        ({"images": IMAGES / 255, "labels": LABELS}, "uint8 with C 1 or 3, not .* float64"),
        ({"images": IMAGES[..., 0], "labels": LABELS}, "N×H×W×C"),
        ({"images": IMAGES[..., :2], "labels": LABELS}, "C 1 or 3"),
        ({"images": IMAGES[:0], "labels": LABELS[:0]}, "N×H×W×C"),
        ({"images": IMAGES, "labels": LABELS[:4]}, "4 labels for 5 images"),
        ({"images": IMAGES, "labels": LABELS / 2}, "labels must be"),
        ({"images": IMAGES, "labels": LABELS, "names": np.array(["a"])}, "1 names for 5"),
        ({"images": IMAGES, "labels": LABELS, "requantise": np.arange(3)}, "256 uint8"),
        ({"images": np.array([None, 1]), "labels": LABELS}, "N×H×W×C"),
        ({"images": IMAGES, "labels": np.array([None] * 5)}, "not a whole .npz"),
    ],
)
def test_wrong_arrays_are_refused_in_one_sentence(tmp_path, arrays, says):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(GradbenchError, match=says) as fault:
        read_npz(tmp_path / "x.npz")
    assert "x.npz" in str(fault.value)
    assert "\n" not in str(fault.value)


@pytest.mark.parametrize("keep", [0, 10, 100, -40])
def test_truncated_files_are_refused(tmp_path, keep):
    np.savez(tmp_path / "x.npz", images=IMAGES, labels=LABELS)
    whole = (tmp_path / "x.npz").read_bytes()
    (tmp_path / "x.npz").write_bytes(whole[:keep])
    with pytest.raises(GradbenchError, match="not a whole"):
        read_npz(tmp_path / "x.npz")


def test_altered_pixels_are_found_by_the_checksum(tmp_path):
    np.savez(tmp_path / "x.npz", images=IMAGES, labels=LABELS)
    whole = bytearray((tmp_path / "x.npz").read_bytes())
    whole[whole.index(IMAGES.tobytes()) + 7] ^= 1
    (tmp_path / "x.npz").write_bytes(whole)
    with pytest.raises(GradbenchError, match="not a whole"):
        read_npz(tmp_path / "x.npz")


def test_restored_images_are_brought_to_equal_grey_levels(tmp_path):
    table = (np.arange(256) // 2 * 2).astype(np.uint8)
    np.savez(tmp_path / "x.npz", images=IMAGES, labels=LABELS, requantise=table)
    raw = read_npz(tmp_path / "x.npz")
    assert np.array_equal(raw.images, table[IMAGES].transpose(0, 3, 1, 2))
    assert raw.restored
    assert "128 grey levels" in raw.note


def test_wordnet_ids_name_classes(tmp_path):
    words = np.array([b"goldfish, Carassius auratus", b"goose"])
    np.savez(
        tmp_path / "x.npz",
        images=IMAGES,
        labels=LABELS % 2,
        wnids=np.array([b"n01443537", b"n01855672"]),
        class_names=words,
    )
    assert read_npz(tmp_path / "x.npz").classes == ("n01443537 goldfish", "n01855672 goose")
