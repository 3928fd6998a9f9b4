"""Shares of gradients that are not zero, against autograd of one image at a time."""

import pytest
import torch
from _dummies import TinyNet, network
from torch import nn

from gradbench.backbones.backbone import Backbone
from gradbench.backbones.densenet import DenseNet
from gradbench.backbones.resnet import ResNet
from gradbench.backbones.resnet_cifar import CifarResNet
from gradbench.errors import GradbenchError
from gradbench.methods.gaia import GAIAZ
from gradbench.outputs.gradient_density import CHUNK
from gradbench.outputs.read import read_outputs

NAME = "gradient_density"


def backbone(net, shape=(3, 16, 16)):
    return Backbone(net, [0.4] * shape[0], [0.3] * shape[0], "abc", shape).eval().double()


def expected(f, image):
    """Return, with hooks on tensors as the authors have them, each layer's squared shares."""
    gradients, layers = {}, {}
    for name, module in f.network.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            layers[name] = module

            def keep(_module, _inputs, output, name=name):
                output.register_hook(lambda gradient: gradients.__setitem__(name, gradient))

            module.handle = module.register_forward_hook(keep)
    f(image[None].clone().requires_grad_()).max().backward()
    for module in layers.values():
        module.handle.remove()
    return [
        [sum(float(v) != 0 for v in channel.flatten()) ** 2 / channel.numel() ** 2
         for channel in gradients[name][0]]
        for name in layers
    ]  # fmt: skip


NETWORKS = {
    "small_cnn": lambda: network(width=2).double(),
    "resnet18": lambda: backbone(ResNet(18, 3, 3, width=2)),
    "resnet20": lambda: backbone(CifarResNet(20, 3, 3, width=2)),
    "densenet": lambda: backbone(DenseNet(10, 3, 3, growth=2)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_they_are_those_of_one_image_by_autograd(name):
    torch.manual_seed(0)
    f = NETWORKS[name]()
    draw = torch.Generator().manual_seed(1)
    x = torch.rand(2, *f.shape, generator=draw, dtype=torch.float64)
    found = read_outputs(f, x, [NAME])
    scores = GAIAZ().score(found)
    for row, score, image in zip(found[NAME], scores, x):
        shares = expected(f, image)
        channels = sum(map(len, shares))
        assert row.tolist() == pytest.approx([sum(layer) / channels for layer in shares])
        assert score.item() == pytest.approx(sum(map(sum, shares)) / channels)
        assert 0 < score < 1


def test_of_more_images_than_a_pass_takes():
    f = network()
    x = torch.rand(2 * CHUNK + 1, *f.shape, generator=torch.Generator().manual_seed(1))
    whole, single = (
        torch.cat([read_outputs(f, part, [NAME])[NAME] for part in x.split(size)])
        for size in (len(x), 1)
    )
    torch.testing.assert_close(whole, single)
    assert len(whole[:, 0].unique()) > CHUNK


def test_a_relu_that_writes_in_place_changes_nothing():
    class InPlace(TinyNet):
        def forward(self, x):
            return self.fc(self.bn(self.conv(x)).relu_().mean((2, 3)))

    torch.manual_seed(0)
    net, other = TinyNet(), InPlace()
    other.load_state_dict(net.state_dict())
    x = torch.rand(5, 1, 8, 8, dtype=torch.float64)
    found = [read_outputs(backbone(one, (1, 8, 8)), x, [NAME])[NAME] for one in (net, other)]
    assert torch.equal(*found)
    with torch.no_grad():
        on = torch.nn.functional.batch_norm(
            net.conv((x - 0.4) / 0.3), net.bn.running_mean, net.bn.running_var, eps=net.bn.eps
        )
    shares = (on > 0).double().mean((2, 3))
    assert ((shares > 0) & (shares < 1)).any()
    torch.testing.assert_close(found[0][:, 0].double(), shares.square().mean(1))


class Plain(TinyNet):
    def __init__(self):
        super().__init__()
        self.bn = nn.Identity()


class Unused(TinyNet):
    def forward(self, x):
        y = self.conv(x)
        self.bn(y)
        return self.fc(y.mean((2, 3)))


@pytest.mark.parametrize(
    ("net", "told"),
    [(Plain, "Plain has no batch normalisation, whose gradients gradient_density counts"),
     (Unused, "does not see how the logits depend on the layer 'bn'")],
)  # fmt: skip
def test_networks_without_such_gradients_are_refused(net, told):
    f = backbone(net(), (1, 8, 8))
    with pytest.raises(GradbenchError, match=told):
        read_outputs(f, torch.rand(3, 1, 8, 8).double(), [NAME])


def test_the_pass_is_counted():
    assert str(GAIAZ().pass_count) == "1 forward, 1 backward"
