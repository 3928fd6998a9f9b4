"""The store: one key, one product, made once, whole or not there."""

import errno
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from gradbench.errors import GradbenchError
from gradbench.store import MANIFEST, Key, Store, canonical_json, find_damage

KEY = Key("outputs", 1, {"size": 3, "name": "x"}, {"images": "abc"})


def fill(folder, scratch):
    (folder / "values.bin").write_bytes(b"0123456789")
    (folder / "inner").mkdir()
    (folder / "inner" / "notes.txt").write_text("hello")
    return {"images": 3}


def never(folder, scratch):
    raise AssertionError("built although it is there")


def everything(root):
    return sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())


# keys


def test_key_does_not_depend_on_the_order_of_settings():
    turned = Key("outputs", 1, {"name": "x", "size": 3}, {"images": "abc"})
    assert turned.digest == KEY.digest
    assert len(KEY.digest) == 40


@pytest.mark.parametrize(
    "other",
    [
        Key("scores", 1, KEY.config, KEY.inputs),
        Key("outputs", 2, KEY.config, KEY.inputs),
        Key("outputs", 1, {"size": 4, "name": "x"}, KEY.inputs),
        Key("outputs", 1, {"size": 3}, KEY.inputs),
        Key("outputs", 1, KEY.config, {"images": "abd"}),
        Key("outputs", 1, KEY.config, {"weights": "abc"}),
        Key("outputs", 1, KEY.inputs, KEY.config),
    ],
)
def test_key_depends_on_everything_in_it(other):
    assert other.digest != KEY.digest


def test_key_golden_value():
    assert Key("step", 1, {"b": [1, 2.5], "a": None}, {"x": "y"}).digest == (
        "18740e007f93984a9dd04d9ba9d717649461ca0b"
    )


def test_key_refuses_numbers_that_json_cannot_tell_apart():
    with pytest.raises(ValueError, match="JSON"):
        _ = Key("step", 1, {"a": float("nan")}).digest
    assert canonical_json({"b": 1, "a": (1, 2)}) == '{"a":[1,2],"b":1}'


# making and finding


def test_made_once_and_found_again(store):
    product = store.make(KEY, fill)
    assert product.path("values.bin").read_bytes() == b"0123456789"
    assert product.about["images"] == 3
    assert product.about["seconds"] >= 0
    assert store.made == [KEY]
    again = Store(store.root)
    found = again.make(KEY, never)
    assert found.folder == product.folder
    assert found.manifest == product.manifest
    assert again.made == []
    assert list(again.used) == [KEY]
    assert everything(store.root) == sorted(
        f"outputs/{KEY.digest}/{name}" for name in ("inner/notes.txt", MANIFEST, "values.bin")
    )


def test_has_and_get(store):
    assert not store.has(KEY)
    assert store.get(KEY) is None
    store.make(KEY, fill)
    assert store.has(KEY)
    assert store.get(KEY).manifest["config"] == {"name": "x", "size": 3}


def truncate(folder):
    (folder / "values.bin").write_bytes(b"01234")


def alter(folder):
    (folder / "values.bin").write_bytes(b"0123456780")


def alter_inner(folder):
    (folder / "inner" / "notes.txt").write_text("hullo")


def remove(folder):
    (folder / "values.bin").unlink()


def truncate_manifest(folder):
    text = (folder / MANIFEST).read_text()
    (folder / MANIFEST).write_text(text[: len(text) // 2])


def foreign_manifest(folder):
    (folder / MANIFEST).write_text("[]")


def alter_note(folder):
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["about"]["images"] = 4
    (folder / MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    "damage",
    [truncate, alter, alter_inner, remove, truncate_manifest, foreign_manifest, alter_note],
)
def test_a_damaged_product_is_found_and_made_anew(store, capsys, damage):
    folder = store.make(KEY, fill).folder
    damage(folder)
    assert find_damage(folder)
    again = Store(store.root)
    assert again.get(KEY) is None
    product = again.make(KEY, fill)
    assert again.made == [KEY]
    assert find_damage(folder) is None
    assert product.about["images"] == 3
    assert product.path("values.bin").read_bytes() == b"0123456789"
    assert capsys.readouterr().err.count("is damaged") == 1


def test_looking_at_a_damaged_product_does_not_remove_it(store):
    folder = store.make(KEY, fill).folder
    alter(folder)
    assert store.get(KEY) is None
    assert folder.is_dir()


def test_a_fault_of_the_builder_leaves_only_its_scratch_folder(store):
    def faulty(folder, scratch):
        (folder / "values.bin").write_bytes(b"half")
        scratch.mkdir(parents=True)
        (scratch / "checkpoint").write_text("epoch 3")
        raise RuntimeError("out of order")

    with pytest.raises(RuntimeError, match="out of order"):
        store.make(KEY, faulty)
    assert everything(store.root) == [f"outputs/{KEY.digest}.scratch/checkpoint"]
    assert store.leftovers() == [store.root / "outputs" / f"{KEY.digest}.scratch"]

    def resumes(folder, scratch):
        assert list(folder.iterdir()) == []
        (folder / "values.bin").write_text((scratch / "checkpoint").read_text())

    assert store.make(KEY, resumes).path("values.bin").read_text() == "epoch 3"
    assert store.leftovers() == []


def test_an_unfinished_part_is_thrown_away(store):
    part = store.root / "outputs" / f"{KEY.digest}.part"
    part.mkdir(parents=True)
    (part / "old.bin").write_text("from a killed process")
    assert store.leftovers() == [part]
    assert store.make(KEY, fill).folder.is_dir()
    assert store.leftovers() == []
    assert "old.bin" not in {p.name for p in store.root.rglob("*")}


def test_products_are_listed_by_age_and_sealed_parts_are_not(store):
    keys = [Key("a", 1, {"n": n}) for n in range(3)]
    for key in keys:
        folder = store.make(key, fill).folder
        os.utime(folder / MANIFEST, (1000 - key.config["n"],) * 2)
    part = store.root / "a" / "0123.part"
    part.mkdir()
    (part / MANIFEST).write_text("{}")
    bad = store.make(Key("b", 1), fill).folder
    (bad / MANIFEST).write_text("{")
    listed = list(store.products())
    assert [folder.name for folder, _ in listed] == [k.digest for k in keys[::-1]] + [bad.name]
    assert listed[0][1]["config"] == {"n": 2}
    assert listed[-1][1] == {}
    assert list(Store(store.root / "nowhere").products()) == []


# faults of the machine


def test_a_root_under_a_file_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    store = Store(tmp_path / "file" / "store")
    with pytest.raises(GradbenchError, match=r"the store at .*file/store cannot be written \("):
        store.make(KEY, never)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(store, code):
    def full(folder, scratch):
        (folder / "values.bin").write_bytes(b"half")
        raise OSError(code, os.strerror(code))

    with pytest.raises(GradbenchError, match=os.strerror(code)) as caught:
        store.make(KEY, full)
    assert "\n" not in str(caught.value)
    assert "store=DIR" in str(caught.value)
    assert everything(store.root) == []


@pytest.mark.parametrize(
    "fault",
    [
        FileNotFoundError(errno.ENOENT, "No such file", "/data/cat.png"),
        OSError("image file is truncated"),
    ],
)
def test_a_fault_of_the_users_files_is_not_blamed_on_the_store(store, fault):
    def faulty(folder, scratch):
        raise fault

    with pytest.raises(OSError, match=str(fault)[:12].replace("[", r"\[")):
        store.make(KEY, faulty)
    assert everything(store.root) == []


# several processes


HEAD = f"""
import os, resource, sys, time
from pathlib import Path
from gradbench.errors import GradbenchError
from gradbench.store import Key, Store
KEY = Key({KEY.step!r}, {KEY.version}, {dict(KEY.config)!r}, {dict(KEY.inputs)!r})
root = Path(sys.argv[1])
store = Store(root / "store")
"""
SLOW = """
def build(folder, scratch):
    scratch.mkdir(parents=True, exist_ok=True)
    (scratch / "checkpoint").write_text("epoch 1")
    (folder / "values.bin").write_text("half")
    (root / f"building-{os.getpid()}").write_text("")
    while not (root / sys.argv[2]).exists():
        time.sleep(0.01)
    (folder / "values.bin").write_text("whole")
    return {"by": os.getpid()}
product = store.make(KEY, build)
print(len(store.made), product.about["by"], product.path("values.bin").read_text())
"""


def start(code, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", HEAD + code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition):
    for _ in range(1500):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("waited 30 seconds in vain")


def building(root):
    return list(root.glob("building-*"))


def test_of_two_processes_one_builds_and_the_other_waits(tmp_path):
    first = start(SLOW, tmp_path, "go")
    wait_for(lambda: building(tmp_path))
    second = start(SLOW, tmp_path, "go")
    assert "waiting for another process" in second.stderr.readline()
    assert second.poll() is None
    (tmp_path / "go").write_text("")
    told = [p.communicate(timeout=60)[0].split() for p in (first, second)]
    pid = str(first.pid)
    assert told == [["1", pid, "whole"], ["0", pid, "whole"]]
    assert building(tmp_path) == [tmp_path / f"building-{pid}"]
    assert list((tmp_path / "store" / "locks").iterdir()) == []


def test_the_next_process_takes_over_from_one_that_was_killed(tmp_path):
    first = start(SLOW, tmp_path, "go")
    wait_for(lambda: building(tmp_path))
    second = start(SLOW, tmp_path, "store")  # exists: it does not hesitate
    try:
        assert "waiting for another process" in second.stderr.readline()
        assert second.poll() is None
    finally:
        first.send_signal(signal.SIGKILL)
        first.communicate(timeout=60)
    out, err = second.communicate(timeout=60)
    assert out.split() == ["1", str(second.pid), "whole"], err
    assert first.returncode == -signal.SIGKILL
    store = Store(tmp_path / "store")
    assert store.leftovers() == []
    assert store.make(KEY, never).about["by"] == second.pid


def test_the_scratch_folder_outlives_a_kill(tmp_path):
    process = start(SLOW, tmp_path, "go")
    wait_for(lambda: building(tmp_path))
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    store = Store(tmp_path / "store")
    assert store.get(KEY) is None
    assert [path.suffix for path in store.leftovers()] == [".part", ".scratch"]

    def build(folder, scratch):
        (folder / "values.bin").write_text((scratch / "checkpoint").read_text())

    assert store.make(KEY, build).path("values.bin").read_text() == "epoch 1"
    assert store.leftovers() == []


LIMITED = """
import signal
import torch
from safetensors.torch import save_file
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
def build(folder, scratch):
    if sys.argv[2] == "safetensors":
        save_file({"values": torch.zeros(100000)}, str(folder / "values.safetensors"))
    else:
        (folder / "values.bin").write_bytes(bytes(100000))
try:
    store.make(KEY, build)
except GradbenchError as fault:
    print(fault)
"""


@pytest.mark.slow
@pytest.mark.parametrize("writer", ["plain", "safetensors"])
def test_a_file_that_cannot_grow_is_one_sentence(tmp_path, writer):
    process = start(LIMITED, tmp_path, writer)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert out.count("\n") == 1
    assert "cannot be written" in out
    assert "File too large" in out
    assert everything(tmp_path) == []
