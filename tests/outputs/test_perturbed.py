"""Steps of the pixels: exact per image, in the published space, the network left as it was."""

import copy
from dataclasses import dataclass

import pytest
import torch
from _dummies import CLASSES, TinyNet, network
from torch import nn

from gradbench.backbones.backbone import Backbone
from gradbench.errors import GradbenchError
from gradbench.outputs.perturbed import PerturbedPass, gradient_signs, read_until


@dataclass(frozen=True)
class HalfSquare:
    """L = |values - target|^2 / 2."""

    target: float = 0.3

    def gradient(self, values):
        return values - self.target

    def settings(self):
        return {"half_square": self.target}


def pixels(count: int = 9, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


SOURCES = ("logits", "layer_means/stage1", "layer_means/stage3")


@pytest.mark.parametrize("source", SOURCES)
def test_signs_are_those_of_one_image_at_a_time_in_float64(source):
    f, x = network().double(), pixels().double()
    found = gradient_signs(f, x, source, HalfSquare())
    for image, sign in zip(x, found):
        image = image[None].clone().requires_grad_()
        loss = (read_until(f, image, source) - 0.3).square().sum() / 2
        (gradient,) = torch.autograd.grad(loss, image)
        assert torch.equal(sign, torch.where(gradient >= 0, 1.0, -1.0)[0])


@pytest.mark.parametrize("source", SOURCES)
def test_the_step_is_the_published_one_in_normalised_space(source):
    """x' = x - m sign / std after normalisation, read by the network behind it."""
    f, x, m = network(), pixels(), 0.01
    (found,) = PerturbedPass(source, HalfSquare(), (m,))(f, x).unbind(1)
    normalised = ((x - f.mean) / f.std).requires_grad_()
    bare = Backbone(f.network, [0.0], [1.0], CLASSES, f.shape).eval()
    loss = (read_until(bare, normalised, source) - 0.3).square().sum() / 2
    (gradient,) = torch.autograd.grad(loss, normalised)
    step = torch.where(gradient >= 0, 1.0, -1.0) / f.std
    with torch.no_grad():
        expected = read_until(bare, normalised - m * step, source)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_small_step_makes_the_loss_smaller_and_none_changes_nothing():
    f, x = network(), pixels()
    loss = HalfSquare()
    still, moved = PerturbedPass("logits", loss, (0.0, 1e-3))(f, x).unbind(1)
    with torch.no_grad():
        torch.testing.assert_close(still, f(x))
    before, after = ((v - loss.target).square().sum(1) for v in (still, moved))
    assert (after < before).all()


def test_several_magnitudes_are_each_alone():
    f, x = network(), pixels()
    together = PerturbedPass("logits", HalfSquare(), (0.1, 0.0, 0.02))(f, x)
    assert together.shape == (9, 3, 3)
    for i, m in enumerate((0.1, 0.0, 0.02)):
        assert torch.equal(PerturbedPass("logits", HalfSquare(), (m,))(f, x)[:, 0], together[:, i])


@pytest.mark.parametrize("source", ["logits", "layer_means/stage2"])
def test_any_batch_size_gives_the_same(source):
    f, x = network().double(), pixels(7).double()
    what = PerturbedPass(source, HalfSquare(), (0.01,))
    whole = what(f, x)
    assert whole.dtype == torch.float32
    for size in (1, 3):
        pieces = torch.cat([what(f, part) for part in x.split(size)])
        torch.testing.assert_close(pieces, whole)


def test_where_nothing_pulls_the_sign_is_one():
    class Dead(TinyNet):
        def forward(self, x):
            return self.fc((0 * x).mean((2, 3)).repeat(1, 4))

    f = Backbone(Dead(), [0.4], [0.3], CLASSES, (1, 8, 8)).eval()
    assert (gradient_signs(f, pixels(), "logits", HalfSquare()) == 1).all()
    assert (gradient_signs(network(), pixels(), "logits", HalfSquare()) == -1).any()


def test_the_network_is_left_as_it_was():
    f = network()
    f.network.conv1.weight.requires_grad_(False)
    f.network.bn1.weight.grad = torch.ones(4)
    before = copy.deepcopy(f.state_dict())
    wanted = [p.requires_grad for p in f.parameters()]
    x = pixels().requires_grad_()
    with torch.inference_mode():
        inside = PerturbedPass("logits", HalfSquare(), (0.1,))(f, pixels())
    outside = PerturbedPass("layer_means/stage2", HalfSquare(), (0.1,))(f, x)
    assert not outside.requires_grad
    assert inside.shape == (9, 1, 3)
    assert x.grad is None
    assert all(torch.equal(before[k], v) for k, v in f.state_dict().items())
    assert [p.requires_grad for p in f.parameters()] == wanted
    assert [p.grad is None for p in f.parameters()].count(False) == 1
    assert not any(m._forward_hooks for m in f.modules())


def test_passes_end_at_the_layer():
    f, called = network(), []
    f.network.stage2.register_forward_hook(lambda *_: called.append(2))
    f.network.stage3.register_forward_hook(lambda *_: called.append(3))
    PerturbedPass("layer_means/stage2", HalfSquare(), (0.1,))(f, pixels())
    assert set(called) == {2}


class Centred(TinyNet):
    """Takes the mean of the batch away."""

    def forward(self, x):
        z = super().forward(x)
        return z - z.mean(0)


def test_a_network_that_mixes_images_is_refused():
    f = Backbone(Centred(), [0.4], [0.3], CLASSES, (1, 8, 8)).eval()
    with pytest.raises(GradbenchError, match="mixes the images"):
        gradient_signs(f, pixels(), "logits", HalfSquare())


class Hidden(TinyNet):
    """Autograd sees the weights at work, not the pixels."""

    def forward(self, x):
        return super().forward(x.detach())


class Unseen(TinyNet):
    @torch.no_grad()
    def forward(self, x):
        return super().forward(x)


@pytest.mark.parametrize("kind", [Hidden, Unseen])
def test_pixels_that_autograd_does_not_see_are_refused(kind):
    f = Backbone(kind(), [0.4], [0.3], CLASSES, (1, 8, 8)).eval()
    for count in (1, 3):
        with pytest.raises(GradbenchError, match=r"does not see how.*depend on the pixels"):
            gradient_signs(f, pixels()[:count], "logits", HalfSquare())


def test_training_mode_and_chance_are_refused():
    with pytest.raises(GradbenchError, match="training mode"):
        gradient_signs(network().train(), pixels(), "logits", HalfSquare())

    class Noisy(TinyNet):
        def forward(self, x):
            return super().forward(x + 0.1 * torch.randn_like(x))

    f = Backbone(Noisy(), [0.4], [0.3], CLASSES, (1, 8, 8)).eval()
    with pytest.raises(GradbenchError, match="random numbers"):
        gradient_signs(f, pixels(), "logits", HalfSquare())


def test_a_gradient_that_is_not_finite_is_refused():
    f = network()
    with torch.no_grad():
        f.network.fc.weight.fill_(float("inf"))
    with pytest.raises(GradbenchError, match="gradient of the pixels through logits"):
        gradient_signs(f, pixels(), "logits", HalfSquare())


def test_a_layer_that_is_never_called_is_one_sentence():
    net = TinyNet()
    net.spare = nn.Identity()
    f = Backbone(net, [0.4], [0.3], CLASSES, (1, 8, 8)).eval()
    with pytest.raises(GradbenchError, match="'spare' is never called"):
        read_until(f, pixels(), "layer_means/spare")
