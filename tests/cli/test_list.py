"""`gradbench list`: a line for every file of a group, and whether it is ready here."""

import re

import numpy as np
import pytest
from _runs import gradbench, one_sentence

from gradbench.cli.list_command import KINDS
from gradbench.config import group_files, load_member
from gradbench.support.instantiate import instantiate

OWN = {"gradient_logistic", "gradient_synthetic", "activation_oneclass", "activation_fused",
       "class_cosine"}  # fmt: skip
"""Detectors that no paper proposes, beside those whose names start with `OWN_STARTS`."""
OWN_STARTS = ("gradient_oneclass", "gradient_fused", "mirrored_")


def listed(*words: str, cwd=".") -> dict[str, str]:
    """Return the lines of one kind by name, without the heading and further lines of a member."""
    ran = gradbench("list", *words, cwd=cwd)
    assert (ran.code, ran.err) == (0, "")
    lines = [line for line in ran.out.splitlines()[1:] if not line.startswith("    ")]
    return {line.split()[0]: line.split(maxsplit=1)[1] for line in lines}


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


def detectors() -> dict:
    """Return every detector by name, without the suites."""
    members = {name: load_member("detector", name) for name in group_files("detector")}
    single = {name: content for name, content in members.items() if "members" not in content}
    return {name: instantiate("detector", name, content) for name, content in single.items()}


def told(*words: str, cwd=".") -> dict[str, dict[str, str]]:
    """Return what is told of detectors: line by name of the line, by name of the detector."""
    ran = gradbench("list", *words, cwd=cwd)
    assert (ran.code, ran.err) == (0, "")
    found: dict[str, dict[str, str]] = {}
    for name, *lines in (part.splitlines() for part in ran.out.split("\n\n")):
        found[name] = dict(re.split(r"  +", line.strip(), maxsplit=1) for line in lines)
    return found


def test_every_detector_names_its_venue_in_the_list(tmp_path):
    lines = listed("detectors", cwd=tmp_path)
    for name, detector in detectors().items():
        venue = detector.info.venue.split()
        what = lines[name].removeprefix("ready").strip()
        if detector.info.own:
            assert what.startswith(f"own, after {venue[0]} {venue[-1]}: "), name
        else:
            assert re.search(rf"\(.+, {venue[0]}( workshop)? {venue[-1]}\), ", what), name
        assert len(what) <= 96, f"{name}: its line is wider than a terminal of 132 columns"


def test_methods_of_our_own_are_not_said_to_be_of_a_paper(tmp_path):
    found = detectors()
    own = {name for name in found if name.startswith(OWN_STARTS)} | OWN
    assert {name for name, detector in found.items() if detector.info.own} == own
    others = [
        n for n in found if n.startswith("ensemble_") or n.endswith(("_fisher", "_trace_all"))
    ]
    others.append("mc_dropout")
    lines = told(f"detector={','.join(['all,frontier', *others])}", cwd=tmp_path)
    assert set(lines) == set(found)
    for name, line in lines.items():
        assert ("gradbench's own" in line.get("method", "")) == (name in own)
        assert ("built on" in line, "paper" in line) == (name in own, name not in own)


def test_a_detector_tells_what_to_cite_and_what_it_takes(tmp_path):
    lines = told("detector=vim,gradient_fused", "detector=vim_hold_out", cwd=tmp_path)
    assert list(lines) == ["vim", "gradient_fused", "vim_hold_out"]
    assert lines["vim"] == {
        "what": load_member("detector", "vim")["description"],
        "paper": "ViM: Out-Of-Distribution with Virtual-logit Matching",
        "venue": "CVPR 2022",
        "url": "https://arxiv.org/abs/2203.10807",
        "code": "https://github.com/haoqiwang/vim",
        "supervision": "none: sees nothing",
        "clean images": "f's training images",
        "reads": "logits, features",
        "passes": "1 forward, 0 backward",
    }
    assert lines["vim_hold_out"]["clean images"] == "hold-out"
    fused = lines["gradient_fused"]
    assert fused["built on"] == "Gradients as a Measure of Uncertainty in Neural Networks"
    assert fused["code"] == "none public"
    assert fused["reads"] == "logits, squared_norms/ones/bce"
    assert fused["passes"] == "1 forward, 1 backward"


def test_the_passes_of_a_step_are_told_before_it_is_chosen(tmp_path):
    lines = told("detector=perturbed", cwd=tmp_path)
    assert lines["odin_fixed"]["passes"] == "2 forward, 1 backward"
    assert lines["odin_fixed"]["reads"] == "logits after a step of the pixels"
    chosen = "1 forward, 0 backward; where it chooses a step 2 forward, 1 backward"
    assert lines["odin"]["passes"] == lines["mahalanobis_p"]["passes"] == chosen
    assert lines["mahalanobis_pfe"]["passes"] == f"{chosen} for each feature layer"
    sees = "tuning: sees images of the challenge, to choose settings"
    assert lines["odin"]["supervision"] == sees
    assert lines["odin"]["clean images"] == "other test images"


def test_a_detector_that_there_is_not():
    assert "did you mean vim" in one_sentence(gradbench("list", "detector=vom"))


def test_passes_by_class_are_told_and_in_no_suite(tmp_path):
    lines = told("detector=fisher_trace_all,gradient_oneclass_fisher", cwd=tmp_path)
    assert all(
        "one more of both for every class but one" in line["passes"] for line in lines.values()
    )
    suites = told("detector=all,frontier", cwd=tmp_path)
    assert not [name for name, line in suites.items() if "every class" in line["passes"]]


def test_an_ensemble_takes_passes_of_every_network(tmp_path):
    lines = told("detector=ensemble_entropy,mc_dropout", cwd=tmp_path)
    passes = {name: line["passes"] for name, line in lines.items()}
    assert passes == {
        "ensemble_entropy": "1 forward, 0 backward, of every network of the run",
        "mc_dropout": "30 forward, 0 backward",
    }
