"""Networks of timm by name: built, loaded from a file, refused in one sentence."""

import sys

import pytest
import torch

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


def test_a_local_file_becomes_the_network(tmp_path):
    timm = pytest.importorskip("timm")
    theirs = timm.create_model("test_resnet", num_classes=7, in_chans=1).eval()
    torch.save({"state_dict": {f"module.{k}": v for k, v in theirs.state_dict().items()}},
               tmp_path / "f.pt")  # fmt: skip
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
