"""Networks of timm by name: built, loaded from a file, refused in one sentence."""

import argparse
import sys

import pytest
import torch
from safetensors.torch import save_file

from gradbench.backbones.build import build_network, check_network, network_config
from gradbench.backbones.checkpoint import load_checkpoint
from gradbench.config import compose
from gradbench.errors import GradbenchError


def config(*words: str) -> dict:
    return compose(["backbone=timm", *words])["backbone"]


def built(*words: str, classes: int = 7, channels: int = 3):
    check_network(config(*words))
    return build_network(network_config(config(*words), classes, channels)).eval()


def test_without_timm_it_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(GradbenchError, match=r"needs the package timm: pip install 'gradbench\[t"):
        built("backbone.model=resnet18")


def test_a_name_of_a_model_is_wanted():
    pytest.importorskip("timm")
    with pytest.raises(GradbenchError, match="backbone=timm names no model: "):
        built()
    with pytest.raises(GradbenchError, match="no model of timm named 'resnet_18': did you mean"):
        built("backbone.model=resnet_18")


@pytest.mark.parametrize("kind", ["parallel", "averaged", "safetensors"])
def test_a_local_file_becomes_the_network(tmp_path, kind):
    timm = pytest.importorskip("timm")
    theirs = timm.create_model("test_resnet", num_classes=7, in_chans=1).eval()
    state = theirs.state_dict()
    parallel = {f"module.{k}": v for k, v in state.items()}
    held = {"parallel": {"state_dict": parallel},
            # of timm's training script
            "averaged": {"epoch": 3, "arch": "test_resnet", "args": argparse.Namespace(lr=0.1),
                         "state_dict": parallel, "state_dict_ema": state}}  # fmt: skip
    save = save_file if kind == "safetensors" else torch.save
    save(held.get(kind, state), tmp_path / "f.pt")
    ours = built("backbone.model=test_resnet.r160_in1k", channels=1)
    load_checkpoint(ours, tmp_path / "f.pt")
    images = torch.rand(2, 1, 32, 32)
    with torch.inference_mode():
        assert torch.equal(ours(images), theirs(images))
    assert config("backbone.model=test_resnet")["name"] == "test_resnet"


def test_options_of_timm_are_passed_on():
    pytest.importorskip("timm")
    net = built("backbone.model=test_vit", "+backbone.img_size=32")
    with torch.inference_mode():
        assert net(torch.zeros(2, 3, 32, 32)).shape == (2, 7)
    with pytest.raises(GradbenchError, match="refuses its arguments"):
        built("backbone.model=test_vit", "+backbone.wheels=4")
