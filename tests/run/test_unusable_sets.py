"""Sets of a challenge that cannot be measured: rows that say why, said before the first pass."""

import numpy as np
import pytest
from _runs import TINY, gradbench, rows
from PIL import Image


def pictures(folder, count):
    folder.mkdir()
    for number in range(count):
        Image.new("L", (8, 8), 10 * number).save(folder / f"{number}.png")


@pytest.fixture
def world(tmp_path):
    """Return a folder with sets of many kinds, and how challenges name them."""
    pictures(tmp_path / "one", 1)
    pictures(tmp_path / "good", 20)
    pictures(tmp_path / "broken", 20)
    (tmp_path / "broken/3.png").write_bytes((tmp_path / "broken/3.png").read_bytes()[:50])
    (tmp_path / "text").mkdir()
    (tmp_path / "text/a.txt").touch()
    (tmp_path / "zip.npz").write_bytes(b"no arrays")
    images = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 1), dtype=np.uint8)
    np.savez(tmp_path / "unlabelled.npz", images=images, labels=np.full(30, -1))
    np.savez(tmp_path / "bare.npz", images=images)
    folders = [
        f"{{use: folder, name: {n}, path: {n}}}" for n in ("one", "good", "broken", "text", "gone")
    ]
    arrays = [f"{{use: arrays, name: {n}, path: {n}.npz}}" for n in ("zip", "unlabelled", "bare")]
    return tmp_path, f"challenges=[gaussian_noise,{','.join(folders + arrays)}]"  # fmt: skip


def test_an_unusable_set_is_a_row_and_all_others_are_measured(world):
    folder, challenges = world
    words = [word for word in TINY if not word.startswith("challenges")]
    ran = gradbench("run", *words, challenges, cwd=folder)
    assert ran.code == 0, ran.err
    holes = {row["challenge"]: row["note"] for row in rows(folder) if not row["method"]}
    assert set(holes) == {"one", "broken", "text", "gone", "zip"}
    assert "5 folds need 5 abnormal groups" in holes["one"]
    assert "1 of 20 files cannot be read as images of this set: broken/3.png" in holes["broken"]
    assert "text holds no image files" in holes["text"]
    assert "there is nothing at gone" in holes["gone"]
    assert "zip.npz is not a whole .npz file" in holes["zip"]
    measured = {row["challenge"] for row in rows(folder, metric="auroc", method="msp", fold="all")}
    assert {"gaussian_noise", "good", "unlabelled", "bare"} <= measured
    said = ran.err.splitlines()
    trained = next(number for number, line in enumerate(said) if "training" in line)
    assert sum("will not be measured" in line for line in said[:trained]) == 5


def test_a_plan_says_the_same_and_goes_on(world):
    folder, challenges = world
    words = [word for word in TINY if not word.startswith("challenges")]
    ran = gradbench("plan", *words, challenges, cwd=folder)
    assert ran.code == 0, ran.err
    for name in ("one", "broken", "text", "gone", "zip"):
        assert any(name in line and "will not be measured" in line for line in ran.out.splitlines())


def test_images_that_cannot_be_decoded_are_a_row_where_they_are_met_late(world, monkeypatch):
    folder, _ = world
    monkeypatch.setattr("gradbench.run.run.LOOKED_AT", 2)
    words = [word for word in TINY if not word.startswith("challenges")]
    use = "challenges=[gaussian_noise,{use: folder, name: broken, path: broken}]"
    ran = gradbench("run", *words, use, cwd=folder)
    assert ran.code == 0, ran.err
    assert "broken: not measured: 1 of 20 files cannot be read" in ran.err
    assert [row["challenge"] for row in rows(folder) if not row["method"]] == ["broken"]
