"""Outputs of mirrored images."""

import pytest
import torch

from gradbench.backbones.backbone import Backbone
from gradbench.backbones.resnet import ResNet
from gradbench.errors import GradbenchError
from gradbench.outputs.catalogue import built_in
from gradbench.outputs.read import read_outputs

NORMS = "squared_norms/ones/bce"


def network() -> Backbone:
    torch.manual_seed(0)
    return Backbone(ResNet(18, 5, width=4), [0.5] * 3, [0.25] * 3, range(5), (3, 16, 16)).eval()


@pytest.mark.parametrize("names", [["logits"], [NORMS], ["features", "layer_means", NORMS]])
def test_they_are_the_outputs_of_the_mirrored_images(names):
    f, x = network(), torch.rand(6, 3, 16, 16)
    expected = read_outputs(f, x.flip(3), names)
    both = read_outputs(f, x, [*names, *(f"mirrored/{name}" for name in names)])
    plain = read_outputs(f, x, names)
    assert set(both) == {*plain, *(f"mirrored/{name}" for name in plain)}
    for name, values in expected.items():
        assert torch.equal(both[f"mirrored/{name}"], values)
        assert torch.equal(both[name], plain[name])
        assert not torch.equal(both[name], values)


def test_keys_change_with_the_version_of_what_is_mirrored(monkeypatch):
    norms = built_in().find(f"mirrored/{NORMS}")
    before = norms.identity
    monkeypatch.setattr(type(norms.of), "version", 99)
    assert norms.identity != before


@pytest.mark.parametrize(
    "name",
    ["mirrored", "mirrored/class_alignments/all", "mirrored/logit", "mirrored/squared_norms/ones"],
)
def test_a_misnamed_one_is_one_sentence(name):
    with pytest.raises(
        GradbenchError, match=r"learns from|write mirrored/<of>|logits|squared_norms/<label>"
    ):
        built_in().find(name)
