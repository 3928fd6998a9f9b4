"""`gradbench data list`, `fetch` and `verify`, from the command line."""

import hashlib
import io
import zipfile

import numpy as np
import pytest
import yaml
from _runs import gradbench, one_sentence
from _server import serving
from PIL import Image

from gradbench.config import group_files


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch):
    for name in ("GRADBENCH_DATA", "GRADBENCH_OFFLINE"):
        monkeypatch.delenv(name, raising=False)


def table(*words: str, cwd) -> dict[str, str]:
    """Return the lines of `data list` by name, without heading."""
    ran = gradbench("data", "list", *words, cwd=cwd)
    assert (ran.code, ran.err) == (0, "")
    return {line.split()[0]: " ".join(line.split()[1:]) for line in ran.out.splitlines()[2:]}


def save(path, count, **more):
    """Write `count` images of 32 pixels, no two alike, as arrays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((count, 32, 32, 3), np.uint8)
    pixels[:, 0, 0, :2] = np.stack(np.divmod(np.arange(count), 256), axis=1)
    np.savez_compressed(path, **({"images": pixels, "labels": np.arange(count) % 10} | more))


def test_the_list_holds_every_set_with_source_and_terms(tmp_path):
    lines = table(cwd=tmp_path)
    assert set(lines) == set(group_files("dataset"))
    assert lines["cifar10"].startswith("nothing www.cs.toronto.edu")
    assert lines["cifar10"].endswith("no licence stated; cite Krizhevsky 2009")
    assert lines["digits"].startswith("train 1,200, test 597 official CC BY 4.0")
    assert lines["patches"].startswith("all official CC BY 2.0")
    assert lines["arrays"].startswith("set path")


def test_the_list_tells_part_status_and_damage(tmp_path):
    save(tmp_path / "data/svhn/train.npz", 40)
    save(tmp_path / "data/textures/test.npz", 5640)
    save(tmp_path / "data/scenes/test.npz", 30)
    save(tmp_path / "data/cifar10/test.npz", 10000)
    save(tmp_path / "data/cifar100/test.npz", 10000, requantise=np.arange(256, dtype=np.uint8))
    (tmp_path / "data/mnist").mkdir()
    (tmp_path / "data/mnist/test.npz").write_bytes(b"no zip")
    for words in ((), ("data.root=data",), (f"data.root={tmp_path}/data",)):
        lines = table(*words, cwd=tmp_path)
        assert lines["svhn"].startswith("train 40 of 73,257, no test part ufldl.stanford.edu")
        assert lines["textures"].startswith("test 5,640 regenerated")
        assert lines["scenes"].startswith("test 30 of 3,407 stand_in")
        assert lines["cifar10"].startswith("test 10,000, no train official")
        assert lines["cifar100"].startswith("test 10,000, no train regenerated")
        assert lines["mnist"].startswith("test, no train damaged")


def test_the_list_looks_where_the_environment_says(tmp_path, monkeypatch):
    save(tmp_path / "elsewhere/svhn/test.npz", 40)
    monkeypatch.setenv("GRADBENCH_DATA", "elsewhere")
    assert table(cwd=tmp_path)["svhn"].startswith("test 40 of 26,032, no train")
    assert table("data.root=nowhere", cwd=tmp_path)["svhn"].startswith("nothing")


def own_set(folder, url: str, content: bytes, **changes) -> None:
    """Write the file of a data set `tree` of the user's own, with one archive."""
    entry = {
        "_target_": "gradbench.data.image_folders.Tree",
        "name": "tree",
        "roles": {"challenge": "test"},
        "counts": {"test": 4},
        "shape": [3, 8, 8],
        "files": {"test": "tree"},
        "labelled": False,
        "terms": "none",
        "archives": [
            {
                "url": f"{url}/tree.zip?dl=1",
                "md5": hashlib.md5(content).hexdigest(),
                "bytes": len(content),
            }
        ],
    }
    (folder / "mine/dataset").mkdir(parents=True, exist_ok=True)
    (folder / "mine/dataset/tree.yaml").write_text(yaml.safe_dump(entry | changes))


@pytest.fixture
def tree(tmp_path):
    """A server with the archive of a set, and the set's file in `mine`."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for number in range(4):
            picture = io.BytesIO()
            noise = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(noise).save(picture, "PNG")
            archive.writestr(f"tree/{number}.png", picture.getvalue())
    with serving({"/tree.zip": stream.getvalue()}) as state:
        own_set(tmp_path, state["url"], stream.getvalue())
        yield state


OWN = ("--config-dir", "mine")


def test_fetch_then_list_then_verify(tree, tmp_path):
    before = table(*OWN, cwd=tmp_path)["tree"]
    assert before == "nothing 127.0.0.1 1 MiB none"
    ran = gradbench("data", "fetch", "tree", *OWN, cwd=tmp_path)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == "tree test: fetched to data/tree\n"
    assert sorted(path.name for path in (tmp_path / "data").rglob("*")) == [
        *(f"{number}.png" for number in range(4)),
        "tree",
    ]
    again = gradbench("data", "fetch", "tree", *OWN, cwd=tmp_path)
    assert again.out == "tree test: here already, at data/tree\n"
    assert len(tree["ranges"]) == 1
    assert table(*OWN, cwd=tmp_path)["tree"].startswith("test files, not counted 127.0.0.1")
    ran = gradbench("data", "verify", "tree", *OWN, cwd=tmp_path)
    assert ran.code == 0
    verdicts = [line[14:].split()[:2] for line in ran.out.splitlines()[1:]]
    assert verdicts == [[what, "ok"] for what in ("files", "count", "form", "labels", "classes",
                                                  "repeats")]  # fmt: skip


def test_fetch_goes_on_after_a_broken_connection(tree, tmp_path):
    tree["broken"] = [0, 100]
    sentence = one_sentence(gradbench("data", "fetch", "tree", *OWN, cwd=tmp_path))
    assert sentence.startswith("tree is not on this machine: put arrays at data/tree/test.npz, or")
    assert "100 bytes came and are kept" in sentence
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["tree.zip.part"]
    assert gradbench("data", "fetch", "tree", *OWN, cwd=tmp_path).code == 0
    assert tree["ranges"][-1] == "bytes=100-"


def test_other_bytes_are_not_kept(tree, tmp_path):
    own_set(tmp_path, tree["url"], b"other")
    sentence = one_sentence(gradbench("data", "fetch", "tree", *OWN, cwd=tmp_path))
    assert "was not kept: its md5 is" in sentence
    assert not list((tmp_path / "data").iterdir())


def test_a_copy_that_is_a_part_is_left_alone(tree, tmp_path):
    save(tmp_path / "data/tree/test.npz", 3)
    ran = gradbench("data", "fetch", "tree", *OWN, cwd=tmp_path)
    assert ran.out == (
        "tree test 3 of 4: here already, at data/tree/test.npz; move this part away and fetch "
        "again to have the whole\n"
    )
    assert tree["ranges"] == []


def test_a_set_of_two_archives_brings_what_is_missing(tree, tmp_path):
    changes = {
        "name": "wood",
        "roles": {"train": "train", "test": "test"},
        "files": {"train": "other", "test": "tree"},
        "archives": [
            {"url": f"{tree['url']}/{name}.zip", "splits": [split],
             "md5": hashlib.md5(tree["files"]["/tree.zip"]).hexdigest()}
            for name, split in (("gone", "train"), ("tree", "test"))
        ],
    }  # fmt: skip
    own_set(tmp_path, "", b"", **changes)
    save(tmp_path / "data/wood/train.npz", 3)
    ran = gradbench("data", "fetch", "tree", *OWN, cwd=tmp_path)
    assert ran.code == 0
    assert ran.out.splitlines() == [
        "wood train 3: here already, at data/wood/train.npz",
        "wood test: fetched to data/tree",
    ]
    assert len(tree["ranges"]) == 1


def test_offline_nothing_is_asked_for_and_nothing_is_left(tree, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADBENCH_OFFLINE", "1")
    sentence = one_sentence(gradbench("data", "fetch", "tree", *OWN, cwd=tmp_path))
    assert sentence == (
        "tree is not on this machine: put arrays at data/tree/test.npz, or put the published files "
        "at data/tree, or allow its download (data.download=true, GRADBENCH_OFFLINE not set)"
    )
    assert tree["ranges"] == []
    assert not (tmp_path / "data").exists()
    monkeypatch.delenv("GRADBENCH_OFFLINE")
    words = ("data", "fetch", "tree", "data.download=false", *OWN)
    assert "allow its download" in one_sentence(gradbench(*words, cwd=tmp_path))


def test_what_cannot_be_had_is_told_before_anything_is_downloaded(tree, tmp_path):
    ran = gradbench("data", "fetch", "tree", "scenes", *OWN, cwd=tmp_path)
    assert "scenes is not on this machine" in one_sentence(ran)
    assert "no download with a checksum is known" in ran.err
    assert tree["ranges"] == []


def test_embedded_images_need_no_fetching(tmp_path):
    ran = gradbench("data", "fetch", "digits", cwd=tmp_path)
    assert ran.out.splitlines() == ["digits train 1,200: embedded", "digits test 597: embedded"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("lits",), "no action of data named 'lits': did you mean list"),
        (("fetch",), "data fetch: name a data set"),
        (("fetch", "cifar1"), "no dataset named 'cifar1': did you mean cifar10"),
        (("verify", "cifar1"), "no dataset named 'cifar1': did you mean cifar10"),
        (("verify", "cifar10"), "cifar10 is not on this machine: `gradbench data fetch cifar10`"),
        (("verify", "scenes"), "scenes is not on this machine: put arrays at"),
        (("verify", "arrays"), "path is not set"),
        (("fetch", "arrays"), "path is not set"),
        (("verify", "folder", "dataset.path=nowhere"), "there is nothing at nowhere"),
        (("verify", "arrays", "dataset.pth=x"), "no setting of dataset arrays named 'pth'"),
        (("verify", "digits", "svhn", "dataset.path=x"), "dataset.KEY=value changes one set"),
        (("verify", "digits", "limit=3"), "no setting of data named 'limit'"),
        (("verify", "digits", "--all"), "no option of data verify named '--all'"),
        (("list", "digits"), "data list takes data.root=DIR alone"),
        (("list", "--config-dir", "nowhere"), "--config-dir nowhere: there is no such folder"),
    ],
)
def test_wrong_input_is_one_sentence(tmp_path, words, says):
    assert one_sentence(gradbench("data", *words, cwd=tmp_path)).startswith(says)
    assert not list(tmp_path.iterdir())


def test_damage_ends_with_exit_code_1(tmp_path):
    save(tmp_path / "data/svhn/test.npz", 40)
    ran = gradbench("data", "verify", "svhn", cwd=tmp_path)
    assert (ran.code, ran.err) == (0, "")
    assert "a part: 40 of 26,032 images" in ran.out
    path = tmp_path / "data/svhn/test.npz"
    path.write_bytes(path.read_bytes()[:-100])
    ran = gradbench("data", "verify", "digits", "svhn", cwd=tmp_path)
    assert (ran.code, ran.err) == (1, "gradbench: 1 of 14 checks found damage\n")
    assert "differs  data/svhn/test.npz is not a whole .npz file" in ran.out


def test_verify_without_a_name_looks_at_all_that_is_here(tmp_path):
    save(tmp_path / "data/svhn/test.npz", 40)
    ran = gradbench("data", "verify", cwd=tmp_path)
    headings = [line for line in ran.out.splitlines() if not line.startswith(" ")]
    assert headings == ["digits", "patches", "svhn"]


def test_verify_of_own_images(tmp_path):
    save(tmp_path / "mine.npz", 40)
    ran = gradbench("data", "verify", "arrays", "dataset.path=mine.npz", cwd=tmp_path)
    assert ran.code == 0
    assert "40 images, no official number is known" in ran.out


def test_an_unwritable_root_is_one_sentence(tree, tmp_path):
    (tmp_path / "data").write_text("a file")
    sentence = one_sentence(gradbench("data", "fetch", "tree", *OWN, cwd=tmp_path))
    assert "data cannot be written to" in sentence
