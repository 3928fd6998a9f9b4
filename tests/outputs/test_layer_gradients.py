"""Gradients with respect to the outputs of layers, and the states of neurons made of them."""

import pytest
import torch
from _dummies import TinyNet, images, network
from torch import nn

from gradbench.backbones.backbone import Backbone
from gradbench.backbones.resnet import ResNet
from gradbench.errors import GradbenchError
from gradbench.outputs.base import BatchContext, Needs
from gradbench.outputs.layer_gradients import kl_from_uniform
from gradbench.outputs.read import read_outputs

LOSS = "kl_from_uniform"


def pixels(count=6, seed=0):
    return torch.from_numpy(images(count, seed).images).float() / 255


def backbone(net, shape=(1, 8, 8)):
    return Backbone(net, [0.4] * shape[0], [0.3] * shape[0], "abc", shape).eval()


def alone(f, image, layer):
    """Return of one image, by autograd in float64, a layer's output and dKL(u || p) / d output."""
    kept = []
    module = f.network.get_submodule(layer)
    handle = module.register_forward_hook(lambda *given: kept.append(given[2]) or given[2] * 1.0)
    p = f(image[None].clone().requires_grad_()).softmax(1)[0]
    handle.remove()
    divergence = sum((1 / len(p)) * torch.log(1 / len(p) / one) for one in p)
    return kept[0][0].detach(), torch.autograd.grad(divergence, kept[0])[0][0]


def test_kl_from_uniform_of_two_classes():
    """p = 1/4, 3/4: KL = log(2) / 2 + log(2/3) / 2."""
    found = kl_from_uniform(torch.tensor([[0.0, 0.0], [0.0, 2.0]]).double().log1p())
    expected = torch.tensor([0, (torch.tensor(2).log() + torch.tensor(2 / 3).log()) / 2])
    torch.testing.assert_close(found.float(), expected, atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("layer", ["stage1", "stage2", "stage3", "fc"])
def test_they_are_those_of_one_image_by_autograd(layer):
    f = network().double()
    x = pixels().double()
    output, gradient = BatchContext(f, x).layer_gradient(LOSS, layer)
    assert not output.requires_grad
    assert not gradient.requires_grad
    for row, image in enumerate(x):
        for found, expected in zip((output[row], gradient[row]), alone(f, image, layer)):
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-15)


def test_the_states_are_pooled_outputs_times_pooled_gradients():
    torch.manual_seed(0)
    f = backbone(ResNet(18, 3, 3, width=4), (3, 16, 16)).double()
    x = torch.rand(3, 3, 16, 16, dtype=torch.float64)
    found = read_outputs(f, x, ["neuron_states"])
    assert list(found) == [f"neuron_states/{layer}" for layer in f.feature_layers]
    for name, states in found.items():
        for row, image in enumerate(x):
            output, gradient = alone(f, image, name.partition("/")[2])
            expected = (output.mean((1, 2)) * gradient.sum((1, 2))).float()
            scale = float(expected.abs().max())
            torch.testing.assert_close(states[row], expected, rtol=1e-5, atol=1e-6 * scale)


def test_the_states_of_the_last_maps_are_those_of_the_features():
    """Average pooling: feature times dKL / d feature, W'(p - u) for the last layer W."""
    torch.manual_seed(0)
    f = backbone(ResNet(18, 3, 3, width=4), (3, 16, 16)).double()
    found = read_outputs(
        f, torch.rand(3, 3, 16, 16).double(), ["neuron_states", "features", "logits"]
    )
    towards = (found["logits"].softmax(1) - 1 / 3) @ f.network.fc.weight.detach().float()
    states = found["neuron_states/layer4"]
    torch.testing.assert_close(states, found["features"] * towards, rtol=1e-4, atol=1e-8)


def test_the_layers_of_a_loss_share_a_pass():
    f, calls = network(), []
    f.network.fc.register_forward_hook(lambda *_: calls.append(1))
    read_outputs(f, pixels(), ["neuron_states"])
    assert len(calls) == 2  # one of two images, for a look at whether they are mixed


def test_what_writes_to_the_output_of_a_layer_changes_nothing():
    class InPlace(TinyNet):
        def forward(self, x):
            return self.fc(self.bn(self.conv(x)).relu_().mean((2, 3)))

    torch.manual_seed(0)
    net = TinyNet()
    other = InPlace()
    other.load_state_dict(net.state_dict())
    found = [read_outputs(backbone(one), pixels(), ["neuron_states"]) for one in (net, other)]
    assert torch.equal(found[0]["neuron_states/bn"], found[1]["neuron_states/bn"])


def test_the_network_is_left_as_it_was():
    f = network()
    f.network.fc.weight.requires_grad_(False)
    before = {name: (p.requires_grad, p.clone()) for name, p in f.named_parameters()}
    with torch.inference_mode():
        read_outputs(f, pixels(), ["neuron_states"])
    for name, p in f.named_parameters():
        assert p.requires_grad == before[name][0]
        assert p.grad is None
        assert torch.equal(p, before[name][1])
    assert not any(module._forward_hooks for module in f.modules())


class Detached(TinyNet):
    def forward(self, x):
        return self.fc(torch.relu(self.bn(self.conv(x))).detach().mean((2, 3)))


class Unused(TinyNet):
    def forward(self, x):
        y = self.conv(x)
        self.bn(y)
        return self.fc(y.mean((2, 3)))


class Mixed(TinyNet):
    def forward(self, x):
        return super().forward(x - x.mean(0))


class Noisy(TinyNet):
    def forward(self, x):
        return super().forward(x + torch.randn_like(x))


@pytest.mark.parametrize(
    ("net", "layer", "told"),
    [
        (TinyNet(), "fc2", "no layer named 'fc2'"),
        (Detached(), "bn", "does not see how the network's outputs depend on the pixels"),
        (Unused(), "bn", "does not see how the logits depend on the layer 'bn'"),
        (Mixed(), "bn", "mixes the images"),
        (Noisy(), "bn", "random numbers"),
        (nn.Sequential(TinyNet(), nn.ReLU()), "0.spare", "no layer named '0.spare'"),
    ],
)
def test_what_has_no_gradient_of_an_image_is_refused(net, layer, told):
    context = BatchContext(backbone(net), pixels(), [Needs(layer_gradients=((LOSS, layer),))])
    with pytest.raises(GradbenchError, match=told):
        context.layer_gradient(LOSS, layer)


def test_a_fault_of_one_layer_is_its_own():
    needs = [Needs(layer_gradients=((LOSS, "bn"), (LOSS, "nothing")))]
    context = BatchContext(backbone(TinyNet()), pixels(), needs)
    output, gradient = context.layer_gradient(LOSS, "bn")
    assert output.shape == gradient.shape == (6, 4, 8, 8)


def test_unknown_losses_are_refused():
    with pytest.raises(GradbenchError, match="kl_from_uniform"):
        BatchContext(network(), pixels()).layer_gradient("mse", "stage1")
