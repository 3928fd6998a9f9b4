"""Whatever goes wrong: one sentence, exit code 2, and nothing half-written."""

import errno
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from _runs import TINY, copy_of, gradbench, one_sentence, reference, same_results
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from gradbench.backbones.resnet import ResNet
from gradbench.backbones.small_cnn import SmallCNN


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return reference(tmp_path_factory.getbasetemp())


def refused(folder: Path, *words: str) -> str:
    """Run with changed settings; return the sentence, having checked that no file was left."""
    before = sorted(folder.rglob("*"))
    sentence = one_sentence(gradbench("run", *TINY, *words, cwd=folder))
    assert sorted(folder.rglob("*")) == before
    return sentence


@pytest.mark.parametrize(
    ("words", "texts"),
    [
        ("seed=0,1,2", ["write 'seeds=[0,1,2]'", "`gradbench sweep seed=0,1,2`"]),
        ("level=1,3", ["write 'levels=[1,3]'", "`gradbench sweep level=1,3`"]),
        ("detector=msp", ["detectors=[msp]"]),
        ("detectors=[mps]", ["did you mean msp"]),
        ("detectors=[msp,msp]", ["'msp' stands there twice"]),
        ("challenges=[{use: fgsm, eps: 1}]", ["did you mean epsilon"]),
        ("challenges=[{use: fgsm, epsilon: 2}]", ["epsilon=2", "between 0 and 1"]),
        ("levels=[6]", ["no level 6", "1, 2, 3, 4, 5"]),
        ("levels=[a]", ["levels[0]=a: write a whole number"]),
        ("levels=[5", ["'levels=[5' cannot be read"]),
        ("training.epoch=3", ["did you mean training.epochs"]),
        ("+training.momentun=3", ["did you mean training.momentum"]),
        ("+limits=3", ["did you mean limit"]),
        ("~limit", ["~limit", "not taken away"]),
        ("training.epochs=0", ["training.epochs=0", "at least 1"]),
        ("evaluation.confidence=2", ["at least 0.5 and below 1"]),
        ("device=tpu", ["device=tpu is not here", "auto, cpu"]),
        ("backbone=smal_cnn", ["did you mean small_cnn", "resnet18"]),
        ("backbone=null", ["name a backbone", "`gradbench list backbones`"]),
        ("backbone.widht=8", ["did you mean backbone.width"]),
        ("backbone._target_=nothing.here", ["backbone: nothing.here cannot be imported"]),
        ("backbone.width=-4", ["refuses its arguments", "negative dimension"]),
        ("training=null", ["training=null: write a mapping {NAME: value}"]),
        ("training={epoch: 3}", ["no setting named 'training.epoch'", "training.epochs"]),
        ("out=", ["name a folder"]),
        ("data.root=null", ["name a folder"]),
        ("data.download=maybe", ["true or false"]),
        ("experiment=quickstrt", ["did you mean quickstart?"]),
        ("protocol.folds=1", ["protocol.folds=1", "at least 3"]),
        ("hello", ["'hello' is no setting", "key=value"]),
        ("=5", ["'=5' is no setting"]),
        ("--nonsense", ["no option of run named '--nonsense'"]),
        ("--config-dir=nowhere", ["nowhere: there is no such folder"]),
    ],
)
def test_what_cannot_be_meant_is_refused_before_any_work(tmp_path, words, texts):
    sentence = refused(tmp_path, words)
    for text in texts:
        assert text in sentence


def test_missing_images_name_three_ways(tmp_path):
    sentence = refused(tmp_path, "dataset=cifar10", "backbone=resnet18")
    for way in ("nowhere/cifar10/train.npz", "cifar-10-batches-py", "download"):
        assert way in sentence


def test_a_run_that_stops_early_leaves_no_folder_that_it_made(tmp_path):
    refused(tmp_path, "dataset=cifar10", "data.root=nowhere", "out=deep/within/run")


def test_own_images_without_a_path(tmp_path):
    assert "dataset.path=/my/images" in refused(tmp_path, "dataset=arrays")


CHECKPOINTS = {
    "another number of classes": (lambda: SmallCNN(7), "7 classes, the data set has 10"),
    "another network": (lambda: ResNet(18, 10, 1, 4), "is of another network"),
    "three channels": (lambda: SmallCNN(10, 3), "channels"),
}


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_a_checkpoint_that_does_not_fit(tmp_path, kind):
    make, text = CHECKPOINTS[kind]
    save_file(make().state_dict(), tmp_path / "f.safetensors")
    assert text in refused(tmp_path, "backbone.checkpoint=f.safetensors")


def test_a_checkpoint_with_nan(tmp_path):
    state = SmallCNN(10).state_dict()
    state["conv2.weight"][0, 0, 0, 0] = torch.nan
    save_file(state, tmp_path / "f.safetensors")
    sentence = refused(tmp_path, "backbone.checkpoint=f.safetensors")
    assert "NaN or infinity in conv2.weight" in sentence


def test_a_checkpoint_that_is_not_there(tmp_path):
    assert "no such file" in refused(tmp_path, "backbone.checkpoint=f.safetensors")


FLAT = """
from torch import nn

class Flat(nn.Sequential):
    def __init__(self, classes, channels=1):
        super().__init__(nn.Flatten(), nn.Linear(64 * channels, classes))
"""


@pytest.mark.parametrize("checkpoint", [False, True])
def test_images_of_a_shape_that_the_network_cannot_take(tmp_path, monkeypatch, checkpoint):
    (tmp_path / "flat_network.py").write_text(FLAT)
    (tmp_path / "backbone").mkdir()
    text = "_target_: flat_network.Flat\nname: flat\ncheckpoint: null\n"
    (tmp_path / "backbone/flat.yaml").write_text(text)
    words = ["--config-dir=.", "backbone=flat", "dataset.shape=[1,4,4]"]
    if checkpoint:
        weights = {"1.weight": torch.zeros(10, 64), "1.bias": torch.zeros(10)}
        save_file(weights, tmp_path / "f.safetensors")
        words.append("backbone.checkpoint=f.safetensors")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    sentence = refused(tmp_path, *words)
    assert "the backbone cannot take images of shape (1, 4, 4) from digits" in sentence


def test_arrays_of_the_wrong_type(tmp_path):
    (tmp_path / "mine").mkdir()
    for split in ("train", "test"):
        images = np.zeros((30, 8, 8, 1), np.float32)
        np.savez(tmp_path / f"mine/{split}.npz", labels=np.arange(30) % 3, images=images)
    sentence = refused(tmp_path, "dataset=arrays", "dataset.path=mine")
    assert "uint8" in sentence
    assert "train.npz" in sentence


@pytest.mark.parametrize("key", ["out", "store"])
def test_a_folder_under_a_file_cannot_be_written(tmp_path, key):
    (tmp_path / "file").write_text("")
    sentence = refused(tmp_path, f"{key}=file/inside")
    assert f"{key}=DIR" in sentence
    assert "file/inside" in sentence


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("at", "fault"),
    [
        ("write_costs", FULL),
        ("write_models", SafetensorError("Error while serializing: I/O error: (os error 28)")),
    ],
)
def test_a_full_disk_leaves_the_results_that_were_there(finished, tmp_path, monkeypatch, at, fault):
    def full(*_):
        raise fault

    here = copy_of(finished, tmp_path)
    names = sorted(p.relative_to(here) for p in (here / "run").rglob("*"))
    monkeypatch.setattr(f"gradbench.report.run_folder.{at}", full)
    sentence = one_sentence(gradbench("run", *TINY, cwd=here))
    assert "the results cannot be written to run" in sentence
    assert "out=DIR" in sentence
    assert same_results(finished, here)
    assert sorted(p.relative_to(here) for p in (here / "run").rglob("*")) == names


def test_a_full_disk_in_the_store_keeps_what_is_finished(tmp_path, monkeypatch):
    def full(*_, **__):
        raise FULL

    with monkeypatch.context() as context:
        context.setattr("gradbench.run.fitting.save_arrays", full)
        ran = gradbench("run", *TINY, cwd=tmp_path)
    assert ran.code == 2
    assert "the store at store cannot be written (No space left on device)" in ran.err
    assert not (tmp_path / "run").exists()
    ran = gradbench("run", *TINY, cwd=tmp_path)
    assert (ran.code, ran.err) == (0, "")  # the network is not trained again
    assert load_file(next(tmp_path.glob("store/network/*/network.safetensors")))


def test_ctrl_c_says_how_to_go_on(tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("gradbench.run.run.run", stop)
    ran = gradbench("run", *TINY, cwd=tmp_path)
    assert ran.code == 130
    assert ran.err == "gradbench: stopped; the same command goes on from here\n"
