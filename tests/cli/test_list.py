"""`gradbench list`: a line for every file of a group, and whether it is ready here."""

import numpy as np
import pytest
from _runs import gradbench, one_sentence

from gradbench.cli.list_command import KINDS
from gradbench.config import group_files


def listed(*words: str, cwd=".") -> dict[str, str]:
    """Return the lines of one kind by name, without the heading."""
    ran = gradbench("list", *words, cwd=cwd)
    assert (ran.code, ran.err) == (0, "")
    return {line.split()[0]: line.split(maxsplit=1)[1] for line in ran.out.splitlines()[1:]}


@pytest.mark.parametrize("kind", KINDS)
def test_a_line_for_every_file(kind, tmp_path):
    lines = listed(kind, cwd=tmp_path)
    assert set(lines) == set(group_files(KINDS[kind]))
    for line in lines.values():
        assert line.startswith(("ready", "not here", "set ")) or ": train images not here" in line


def test_all_kinds_in_one_list(tmp_path):
    out = gradbench("list", cwd=tmp_path).out
    assert [line.split()[0] for line in out.splitlines() if not line.startswith(" ")] == [*KINDS]


def test_what_is_missing_is_said(tmp_path, monkeypatch):
    monkeypatch.delenv("GRADBENCH_DATA", raising=False)
    monkeypatch.setenv("GRADBENCH_OFFLINE", "1")
    lines = listed("datasets", cwd=tmp_path)
    assert lines["digits"].startswith("ready")
    assert lines["cifar10"].startswith("not here, downloads off")
    assert lines["arrays"].startswith("set path")
    monkeypatch.delenv("GRADBENCH_OFFLINE")
    assert listed("datasets", cwd=tmp_path)["cifar10"].startswith("not here, would be downloaded")


def test_what_a_part_of_a_set_can_be_used_for(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADBENCH_OFFLINE", "1")
    (tmp_path / "svhn").mkdir()
    np.savez(tmp_path / "svhn" / "train.npz", images=[], labels=[])
    data = f"data.root={tmp_path}"
    assert listed("datasets", data)["svhn"].startswith("ready as challenge, no test images")
    assert listed("challenges", data)["svhn"].startswith("ready ")
    assert listed("experiments", data)["ood_svhn"].startswith("svhn: test images not here")


def test_data_root_is_looked_at(tmp_path):
    for name in ("cifar10", "svhn"):
        (tmp_path / "images" / name).mkdir(parents=True)
    for split in ("train", "test"):
        np.savez(tmp_path / f"images/cifar10/{split}.npz", images=[], labels=[])
    np.savez(tmp_path / "images/svhn/test.npz", images=[], labels=[])
    lines = listed("challenges", "data.root=images", cwd=tmp_path)
    assert lines["svhn"].startswith("ready")
    assert lines["gtsrb"].startswith("not here")
    assert lines["cure_tsr"].startswith("not here, none of 12")
    lines = listed("experiments", "data.root=images", cwd=tmp_path)
    assert lines["ood_cifar10_far"].startswith("ready but for textures, scenes, gtsrb")
    assert lines["quickstart"].startswith("ready")


def test_a_kind_that_there_is_not():
    assert "did you mean detectors" in one_sentence(gradbench("list", "detecters"))


def test_an_experiment_of_the_users_own(tmp_path):
    folder = tmp_path / "settings" / "experiment"
    folder.mkdir(parents=True)
    digits = "# @package _global_\ndefaults: [{override /dataset: digits}, _self_]\nname: mine\n"
    (folder / "bare.yaml").write_text(digits)
    (folder / "one.yaml").write_text(f"{digits}challenges: svhn\n")
    own = "challenges: [{use: folder, name: photos, path: nowhere}, patches]\n"
    (folder / "own.yaml").write_text(digits + own)
    lines = listed("experiments", "--config-dir", "settings", cwd=tmp_path)
    assert lines["bare"].strip() == "ready"
    assert lines["one"].startswith("ready but for svhn")
    assert lines["own"].startswith("ready but for photos")
