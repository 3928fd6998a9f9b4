"""Which layers are read: named by the user, declared by the class, or the last blocks."""

import pytest
import torch
import torchvision
from _dummies import TinyNet, images
from torch import nn

from gradbench.backbones.backbone import Backbone, digest
from gradbench.backbones.feature_layers import feature_layers
from gradbench.backbones.resnet import ResNet
from gradbench.errors import GradbenchError
from gradbench.extraction.feature_layers import expand


def test_a_class_declares_its_own():
    assert feature_layers(ResNet(18, 5, width=4)) == (
        "stem",
        "layer1",
        "layer2",
        "layer3",
        "layer4",
    )
    assert feature_layers(TinyNet()) == ("bn",)


def test_of_an_unknown_network_without_blocks_the_layers_but_the_last():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 4, 3), nn.Flatten())
    net.append(nn.Linear(64, 3))
    assert feature_layers(net) == ("0", "2")
    assert feature_layers(nn.Sequential(nn.Linear(2, 2))) == ("0",)


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("resnet18", ("bn1", "layer1", "layer2", "layer3", "layer4")),
        (
            "densenet121",
            (
                "features.transition2",
                "features.denseblock3",
                "features.transition3",
                "features.denseblock4",
                "features.norm5",
            ),
        ),
        ("mobilenet_v2", tuple(f"features.{i}" for i in range(14, 19))),
        ("vgg11_bn", tuple(f"features.{i}" for i in (11, 15, 18, 22, 25))),
        ("vit_b_16", ("conv_proj", "encoder")),
    ],
)
def test_of_torchvisions_networks_the_last_blocks(name, layers):
    with torch.device("meta"):
        net = getattr(torchvision.models, name)()
    assert feature_layers(net) == layers


def test_the_user_names_others():
    net = ResNet(18, 5, width=4)
    backbone = Backbone(net, [0.5] * 3, [0.2] * 3, range(5), (3, 8, 8), None, ["layer2.0", "stem"])
    assert backbone.feature_layers == ("layer2.0", "stem")
    plain = Backbone(net, [0.5] * 3, [0.2] * 3, range(5), (3, 8, 8))
    assert digest(backbone) == digest(plain)  # it is the same network


@pytest.mark.parametrize(
    ("named", "text"),
    [
        (["layer9"], "no layer of the network named 'layer9': did you mean layer"),
        (["layer1", "layer1"], "a layer stands there twice"),
        ("layer1", r"write a list, for example backbone.feature_layers=\[layer3,layer4\]"),
        ([], "write a list"),
        (3, "write a list"),
    ],
)
def test_what_is_no_layer_is_one_sentence(named, text):
    with pytest.raises(GradbenchError, match=text):
        feature_layers(ResNet(18, 5, width=4), named)


def test_the_valid_names_are_told():
    with pytest.raises(GradbenchError, match=r"valid choices are bn, conv, fc$"):
        feature_layers(TinyNet(), ["stage7"])


def test_the_config_names_them(tmp_path):
    from gradbench.backbones.obtain import Order, fresh
    from gradbench.backbones.recipe import Recipe

    config = {"_target_": "_dummies.TinyNet", "name": "tiny", "feature_layers": ["conv", "bn"]}
    order = Order(config, Recipe(epochs=1), 0, (0.4,), (0.3,), torch.device("cpu"))
    assert fresh(order, images(9)).feature_layers == ("conv", "bn")
    assert "feature_layers" not in str(order.key(images(9)).config)  # it is trained alike


def test_a_network_without_parts_has_no_feature_layers_and_says_so_when_asked():
    backbone = Backbone(nn.Flatten(), [0.5], [0.5], "ab", (1, 1, 2))
    assert backbone.feature_layers == ()
    assert expand(backbone, ["logits"]) == ["logits"]
    with pytest.raises(GradbenchError, match="Flatten has no parts that could be feature layers"):
        expand(backbone, ["layer_means"])


def test_an_attribute_of_another_meaning_is_no_list_of_layers():
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    net.feature_layers = nn.ModuleList([net[0]])
    assert feature_layers(net) == ("0", "2")
