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
from gradbench.outputs.catalogue import built_in


def test_a_class_declares_its_own():
    stages = ("stem", "layer1", "layer2", "layer3", "layer4")
    assert feature_layers(ResNet(18, 5, width=4), (3, 8, 8)) == stages
    assert feature_layers(TinyNet(), (1, 8, 8)) == ("bn",)


def test_of_an_unknown_network_without_blocks_the_layers_but_the_last():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 4, 3), nn.Flatten())
    net.append(nn.Linear(64, 3))
    assert feature_layers(net, (1, 8, 8)) == ("0", "2")
    assert feature_layers(nn.Sequential(nn.Linear(2, 2)), (1, 1, 2)) == ("0",)


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
        ("swin_t", (*(f"features.{i}" for i in range(4, 8)), "norm")),
        (
            "vit_b_16",
            (*(f"encoder.layers.encoder_layer_{i}" for i in range(8, 12)), "encoder.ln"),
        ),
    ],
)
def test_of_torchvisions_networks_the_last_blocks(name, layers):
    with torch.device("meta"):
        net = getattr(torchvision.models, name)()
    assert feature_layers(net, (3, 224, 224)) == layers
    wrapped = tuple(f"model.{name}" for name in layers)
    assert feature_layers(Wrapper(net), (3, 224, 224)) == wrapped


def test_parts_that_are_called_in_training_alone_are_none():
    with torch.device("meta"):
        net = torchvision.models.googlenet(init_weights=False, aux_logits=True)
    names = tuple(f"inception{i}" for i in ("4c", "4d", "4e", "5a", "5b"))
    assert feature_layers(net, (3, 64, 64)) == names


class Wrapper(nn.Module):
    """A network in a network."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x)


def conv(inside, out):
    return nn.Sequential(nn.Conv2d(inside, out, 3, padding=1), nn.ReLU())


class ClassifierFirst(nn.Module):
    """The classifier is registered before what is called before it."""

    def __init__(self):
        super().__init__()
        self.fc, self.block2, self.block1 = nn.Linear(4, 3), conv(4, 4), conv(1, 4)

    def forward(self, x):
        return self.fc(self.block2(self.block1(x)).mean((2, 3)))


class Listed(nn.Module):
    """Blocks in lists that are called in turn, one of them twice; a scale of the logits."""

    def __init__(self):
        super().__init__()
        self.norms = nn.ModuleList(nn.Sequential(nn.BatchNorm2d(4)) for _ in range(3))
        self.blocks = nn.ModuleList([conv(1, 4), conv(4, 4), conv(4, 4)])
        self.shared, self.fc, self.scale = conv(4, 4), nn.Linear(4, 3), nn.BatchNorm1d(3)

    def forward(self, x):
        for block, norm in zip(self.blocks, self.norms):
            x = norm(block(x))
        return self.scale(self.fc(self.shared(self.shared(x)).mean((2, 3))))


LISTED = ["norms.0", "blocks.1", "norms.1", "blocks.2", "norms.2"]


class Beside(ClassifierFirst):
    """Something is called after the logits, and an output that is no tensor."""

    def __init__(self):
        super().__init__()
        self.pair, self.projection = Pair(), nn.Linear(3, 2)

    def forward(self, x):
        logits = self.fc(self.pair(self.block2(self.block1(x)))[0].mean((2, 3)))
        self.projection(logits.relu())
        return logits


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = conv(4, 4)

    def forward(self, x):
        return self.inner(x), x


@pytest.mark.parametrize(
    ("net", "layers"),
    [
        (ClassifierFirst(), ["block1", "block2"]),
        (Listed(), LISTED),
        (Beside(), ["block1", "block2", "pair.inner"]),
        (
            Wrapper(nn.Sequential(conv(1, 4), conv(4, 4), nn.Flatten(), nn.Linear(256, 3))),
            ["model.0", "model.1"],
        ),
        (
            nn.Sequential(nn.Conv2d(1, 1, 1), Wrapper(Listed())),
            [f"1.model.{name}" for name in LISTED],
        ),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), ["1"]),
    ],
)
def test_a_pass_tells_the_order_and_the_classifier(net, layers):
    assert feature_layers(net, (1, 8, 8)) == tuple(layers)


def test_the_pass_leaves_the_network_as_it_was():
    net = Listed().train()
    net.fc.eval()
    net.fc.register_forward_hook(lambda *_: None)
    modes = [module.training for module in net.modules()]
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    torch.manual_seed(3)
    Backbone(net, [0.5], [0.5], "abc", (1, 8, 8))
    drawn = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(1))
    assert [module.training for module in net.modules()] == modes
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert [len(m._forward_hooks) for m in net.modules() if m._forward_hooks] == [1]
    assert not torch.nn.modules.module._global_forward_hooks


def test_a_network_that_cannot_make_the_pass_has_none():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    assert feature_layers(net, (1, 5, 5)) == ()


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
        (["layer1", "layer1"], "a layer is listed twice"),
        ("layer1", r"write a list, for example backbone.feature_layers=\[layer3,layer4\]"),
        ([], "write a list"),
        (3, "write a list"),
    ],
)
def test_what_is_no_layer_is_one_sentence(named, text):
    with pytest.raises(GradbenchError, match=text):
        feature_layers(ResNet(18, 5, width=4), (3, 8, 8), named)


def test_the_valid_names_are_told():
    with pytest.raises(GradbenchError, match=r"valid choices are bn, conv, fc$"):
        feature_layers(TinyNet(), (1, 8, 8), ["stage7"])


def test_the_config_names_them(tmp_path):
    from gradbench.backbones.recipe import Recipe
    from gradbench.backbones.trained_network import NetworkRequest, initial_network

    config = {"_target_": "_dummies.TinyNet", "name": "tiny", "feature_layers": ["conv", "bn"]}
    order = NetworkRequest(config, Recipe(epochs=1), 0, (0.4,), (0.3,), torch.device("cpu"))
    assert initial_network(order, images(9)).feature_layers == ("conv", "bn")
    assert "feature_layers" not in str(order.key(images(9)).config)  # it is trained alike


def test_a_network_without_parts_has_no_feature_layers_and_says_so_when_asked():
    backbone = Backbone(nn.Flatten(), [0.5], [0.5], "ab", (1, 1, 2))
    assert backbone.feature_layers == ()
    assert [one.name for one in built_in().of_network(backbone, ["logits"])] == ["logits"]
    with pytest.raises(GradbenchError, match="Flatten has no parts that could be feature layers"):
        built_in().of_network(backbone, ["layer_means"])


def test_an_attribute_of_another_meaning_is_no_list_of_layers():
    net = Wrapper(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)))
    net.feature_layers = nn.ModuleList([nn.ReLU()])
    assert feature_layers(net, (1, 1, 2)) == ("model.0",)
