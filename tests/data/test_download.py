import hashlib
import io
import os
import tarfile
import zipfile

import pytest
from _server import serving

from gradbench.data.dataset import DataSettings
from gradbench.data.download import download_archive, download_file, unpack
from gradbench.data.image_folders import Tree
from gradbench.errors import GradbenchError

CONTENT = bytes(range(256)) * 9000
MD5 = hashlib.md5(CONTENT).hexdigest()
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server():
    with serving({"/x.bin": CONTENT}) as state:
        yield state


def test_fetches_checks_and_does_not_fetch_again(server, tmp_path):
    path = tmp_path / "deep" / "x.bin"
    download_file(server["url"] + "/x.bin", path, md5=MD5)
    assert path.read_bytes() == CONTENT
    assert os.listdir(path.parent) == ["x.bin"]
    download_file(server["url"] + "/x.bin", path, sha256=SHA256)
    assert server["ranges"] == [None]


@pytest.mark.parametrize(
    ("part", "ranged", "requests"),
    [
        (CONTENT[:1000], True, ["bytes=1000-"]),
        (CONTENT, True, [f"bytes={len(CONTENT)}-"]),
        (b"begin", False, ["bytes=5-"]),
        (b"another" * 100, True, ["bytes=700-", None]),
    ],
    ids=["goes on", "complete", "server without ranges", "part of another file"],
)
def test_a_part_is_completed_or_replaced(server, tmp_path, part, ranged, requests):
    server["ranged"] = ranged
    (tmp_path / "x.bin.part").write_bytes(part)
    download_file(server["url"] + "/x.bin", tmp_path / "x.bin", md5=MD5)
    assert (tmp_path / "x.bin").read_bytes() == CONTENT
    assert server["ranges"] == requests


def test_a_connection_that_breaks_is_taken_up_again(server, tmp_path):
    server["broken"] = [5000, 4000]
    download_file(server["url"] + "/x.bin", tmp_path / "x.bin", md5=MD5)
    assert (tmp_path / "x.bin").read_bytes() == CONTENT
    assert server["ranges"] == [None, "bytes=4000-", "bytes=9000-"]


def test_a_dead_connection_keeps_what_came(server, tmp_path):
    server["broken"] = [0, 4000]
    with pytest.raises(GradbenchError, match=r"ended after 4000 of .*; 4,000 bytes came and are"):
        download_file(server["url"] + "/x.bin", tmp_path / "x.bin", md5=MD5)
    assert (tmp_path / "x.bin.part").read_bytes() == CONTENT[:4000]
    download_file(server["url"] + "/x.bin", tmp_path / "x.bin", md5=MD5)
    assert server["ranges"][-1] == "bytes=4000-"


def test_wrong_checksum_keeps_nothing(server, tmp_path):
    with pytest.raises(GradbenchError, match=f"was not kept: its md5 is {MD5} in place of 0000"):
        download_file(server["url"] + "/x.bin", tmp_path / "x.bin", md5="0" * 32)
    assert not os.listdir(tmp_path)


def test_unknown_file_unknown_server_and_no_checksum(server, tmp_path):
    with pytest.raises(GradbenchError, match="HTTP 404"):
        download_file(server["url"] + "/y.bin", tmp_path / "y.bin", md5=MD5)
    with pytest.raises(GradbenchError, match="could not be downloaded"):
        download_file("http://127.0.0.1:1/y.bin", tmp_path / "y.bin", md5=MD5)
    with pytest.raises(GradbenchError, match="no known checksum"):
        download_file(server["url"] + "/x.bin", tmp_path / "x.bin")


def tarred(*members):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, kind in members:
            member = tarfile.TarInfo(name)
            content = b"" if kind else name.encode()
            member.size = len(content)
            if kind:
                member.type, member.linkname = kind, "../../outside"
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def zipped(*names):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            archive.writestr(name, name)
    return stream.getvalue()


def test_extracts_into_folders_that_are_there(tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(tarred(("d/one", None), ("d/e/two", None)))
    (tmp_path / "b.zip").write_bytes(zipped("d/three", "d/e/four"))
    unpack(tmp_path / "a.tar.gz", tmp_path)
    unpack(tmp_path / "b.zip", tmp_path)
    found = sorted(p.relative_to(tmp_path).as_posix() for p in (tmp_path / "d").rglob("*"))
    assert found == ["d/e", "d/e/four", "d/e/two", "d/one", "d/three"]
    assert (tmp_path / "d" / "e" / "two").read_text() == "d/e/two"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.tar.gz", tarred(("good", None), ("../evil", None))),
        ("a.tar.gz", tarred(("good", None), ("link", tarfile.SYMTYPE))),
        ("a.tar.gz", tarred(("good", None), ("pipe", tarfile.FIFOTYPE))),
        ("a.zip", zipped("good", "../evil")),
        ("a.zip", zipped("good", "/tmp/evil")),
    ],
)
def test_archives_cannot_leave_their_folder(tmp_path, name, content):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / name).write_bytes(content)
    if name == "a.zip":  # whose members outside are passed over
        unpack(folder / name, folder)
    else:
        with pytest.raises(GradbenchError, match="could not be unpacked"):
            unpack(folder / name, folder)
    assert set(os.listdir(folder)) == {name} | ({"good"} if name == "a.zip" else set())
    assert os.listdir(tmp_path) == ["folder"]
    assert not os.path.exists("/tmp/evil")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.tar.gz", tarred(("x" * 50, None), ("y", None))[:-20]),
        ("a.zip", zipped("one")[:-5]),
        ("a.gz", b"no gz"),
    ],
)
def test_damaged_archives_leave_nothing(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(GradbenchError, match="could not be unpacked"):
        unpack(tmp_path / name, tmp_path)
    assert os.listdir(tmp_path) == [name]


def test_inner_files_are_unpacked_too(server, tmp_path):
    import gzip

    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("gzip/letters.gz", gzip.compress(b"letters"))
        archive.writestr("gzip/digits.gz", gzip.compress(b"digits"))
    server["files"]["/all.zip"] = stream.getvalue()
    md5 = hashlib.md5(stream.getvalue()).hexdigest()
    entry = {"url": server["url"] + "/all.zip?dl=1", "md5": md5, "to": "raw"}
    download_archive({**entry, "inner": "gzip/l*.gz"}, tmp_path)
    assert sorted(os.listdir(tmp_path / "raw")) == ["gzip", "letters"]
    assert (tmp_path / "raw" / "letters").read_bytes() == b"letters"


def test_a_data_set_is_downloaded_once(server, tmp_path, monkeypatch):
    from PIL import Image

    monkeypatch.delenv("GRADBENCH_OFFLINE", raising=False)
    picture = io.BytesIO()
    Image.new("RGB", (4, 4), (1, 2, 3)).save(picture, "PNG")
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("tree/a.png", picture.getvalue())
    server["files"]["/tree.zip"] = stream.getvalue()
    md5 = hashlib.md5(stream.getvalue()).hexdigest()
    dataset = Tree(
        name="tree",
        roles={"challenge": "test"},
        files={"test": "tree"},
        archives=[{"url": server["url"] + "/tree.zip", "md5": md5}],
    )
    root = tmp_path / "root"
    images = dataset.load("challenge", DataSettings(root))
    assert images.images[:1].ravel()[::16].tolist() == [1, 2, 3]
    assert os.listdir(root) == ["tree"]
    dataset.load("challenge", DataSettings(root))
    assert len(server["ranges"]) == 1


def test_checksums_are_those_that_torchvision_ships():
    from torchvision import datasets

    from gradbench.config import load_member

    for name, library in (("cifar10", "CIFAR10"), ("cifar100", "CIFAR100"), ("stl10", "STL10")):
        entry = load_member("dataset", name)["archives"][0]
        shipped = getattr(datasets, library)
        assert (entry["url"], entry["md5"]) == (shipped.url, shipped.tgz_md5)
    for name, library in (("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")):
        found = [(e["url"], e["md5"]) for e in load_member("dataset", name)["archives"]]
        shipped = getattr(datasets, library)
        assert found == [(shipped.mirrors[0] + file, md5) for file, md5 in shipped.resources]
    letters = load_member("dataset", "emnist_letters")["archives"][0]
    assert (letters["url"], letters["md5"]) == (datasets.EMNIST.url, datasets.EMNIST.md5)
    houses = {e["splits"][0]: e for e in load_member("dataset", "svhn")["archives"]}
    for split, entry in houses.items():
        url, _, md5 = datasets.SVHN.split_list[split]
        assert (entry["url"], entry["md5"]) == (url, md5)
