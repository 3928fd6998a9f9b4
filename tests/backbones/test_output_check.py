"""What a network may give for an image, and that it does so whatever stands beside it."""

from collections import namedtuple
from types import SimpleNamespace

import pytest
import torch
from _dummies import CLASSES, TinyNet, images
from torch import nn

from gradbench.backbones.backbone import Backbone
from gradbench.backbones.output_check import check_outputs, network_faults
from gradbench.backbones.recipe import Recipe
from gradbench.backbones.training import train
from gradbench.backbones.workers import Worker
from gradbench.errors import GradbenchError


class Net(TinyNet):
    """Gives what `turn` makes of its logits."""

    def __init__(self, turn=None):
        super().__init__()
        self.turn = turn

    def forward(self, x):
        return self.turn(super().forward(x))


def backbone(turn) -> Backbone:
    torch.manual_seed(0)
    return Backbone(Net(turn), [0.4], [0.3], CLASSES, (1, 8, 8)).eval()


Named = namedtuple("Named", "logits aux")


@pytest.mark.parametrize(
    "turn",
    [
        lambda z: {"logits": z, "aux": z + 1},
        lambda z: Named(z, z + 1),
        lambda z: SimpleNamespace(logits=z, hidden_states=(z, z)),
    ],
)
def test_logits_among_several_outputs(turn):
    plain, mine = backbone(lambda z: z), backbone(turn)
    pixels = torch.rand(5, 1, 8, 8)
    assert torch.equal(mine(pixels), plain(pixels))
    check_outputs(mine, images(20))


@pytest.mark.parametrize(
    ("turn", "text"),
    [
        (lambda z: (z, z + 1), "gives tuple, in which nothing is called logits"),
        (lambda z: {"out": z}, "gives dict, in which nothing is called logits"),
        (lambda z: None, "gives NoneType, in which nothing is called logits"),
        (lambda z: z[:, :2], r"outputs of shape \(2,\) for an image, toy has 3 classes"),
        (lambda z: z.mean(0, keepdim=True), r"outputs of shape \(1, 3\) for 4 images"),
        (lambda z: z / 0 * 0, "logits that are NaN or infinite"),
        (lambda z: z - z.mean(0), "other logits alone than among 4 .*mixes the images of a batch"),
        (lambda z: z.flip(0), "other logits alone"),
        (lambda z: z + torch.rand_like(z), "other logits alone .*draws random numbers"),
        (lambda z: z.view(7), "cannot take images of shape"),
        (
            lambda z: z.nothing,
            r"backbone Net raises Attr.*test_output_check.py, line \d",
        ),
    ],
)
def test_outputs_that_are_none(turn, text):
    with pytest.raises(GradbenchError, match=text) as caught:
        check_outputs(backbone(turn), images(20))
    assert "\n" not in str(caught.value)


def test_batch_norm_without_statistics_is_refused_whatever_reads_it():
    inner = nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False), nn.Flatten(),
                          nn.Linear(64, 3))  # fmt: skip
    mixed = Backbone(inner, [0.4], [0.3], CLASSES, (1, 8, 8)).eval()
    with pytest.raises(GradbenchError, match="batch norm without running statistics"):
        check_outputs(mixed, images(20))


def test_the_input_may_be_changed_in_place():
    class Changes(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(64, 3)

        def forward(self, x):
            return self.fc(x.mul_(2).flatten(1))

    pixels = torch.rand(4, 1, 8, 8)
    before = pixels.clone()
    Backbone(Changes(), [0.0], [1.0], CLASSES, (1, 8, 8))(pixels)
    assert torch.equal(pixels, before)


def test_what_training_raises_is_a_sentence_of_ones_own_network_alone():
    mine = backbone(lambda z: z)
    with pytest.raises(GradbenchError, match="backbone Net raises"), network_faults(mine):
        raise KeyError("x")
    own = Backbone(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), [0.4], [0.3], CLASSES, (1, 8, 8))
    with pytest.raises(KeyError), network_faults(own):
        raise KeyError("x")


def test_a_network_without_an_autograd_graph_cannot_be_trained(tmp_path):
    class Blind(TinyNet):
        def forward(self, x):
            with torch.no_grad():
                return super().forward(x)

    train_images, recipe = images(30), Recipe(epochs=1, batch=10)
    shape = train_images.shape
    blind = Backbone(Blind(), [0.5], [0.5], CLASSES, shape, {})
    with pytest.raises(GradbenchError, match="outputs have no autograd graph"):
        train(blind, train_images, recipe, 0, tmp_path, Worker(torch.device("cpu")))
