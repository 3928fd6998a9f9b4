"""Architectures, normalisation, digests, and building networks from their configuration."""

import pytest
import torch
import torchvision
from _dummies import CLASSES, TinyNet, images, network
from torch import nn

from gradbench.backbones.backbone import Backbone, digest
from gradbench.backbones.build import build_network, network_config
from gradbench.backbones.recipe import Recipe
from gradbench.backbones.resnet import ResNet
from gradbench.backbones.trained_network import (
    NetworkRequest,
    find_network,
    initial_network,
    load_or_train,
)
from gradbench.config import load_member
from gradbench.errors import GradbenchError
from gradbench.store import Store

CPU = torch.device("cpu")
SMALL = {"_target_": "gradbench.backbones.small_cnn.SmallCNN", "width": 4}


@pytest.mark.parametrize(("depth", "tensors"), [(18, 62), (50, 161)])
def test_resnet_has_torchvisions_names_and_number_of_tensors(depth, tensors):
    with torch.device("meta"):
        ours = ResNet(depth, classes=10)
        theirs = getattr(torchvision.models, f"resnet{depth}")(num_classes=10)
    assert len(list(ours.parameters())) == tensors
    assert list(ours.state_dict()) == list(theirs.state_dict())
    different = {
        name
        for name, tensor in ours.state_dict().items()
        if tensor.shape != theirs.state_dict()[name].shape
    }
    assert different == {"conv1.weight"}


def test_resnet_computes_what_torchvision_computes_after_the_stem():
    ours, theirs = ResNet(18, 5, width=64), torchvision.models.resnet18(num_classes=5)
    state = {k: v for k, v in theirs.state_dict().items() if k != "conv1.weight"}
    ours.load_state_dict(state, strict=False)
    theirs.conv1, theirs.maxpool = ours.conv1, nn.Identity()
    x = torch.randn(2, 3, 16, 16)
    with torch.inference_mode():
        torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


@pytest.mark.parametrize(("settings", "text"), [((19, 10), "depth 19"), ((18, 10, 3, 0), "width")])
def test_resnet_refuses(settings, text):
    with pytest.raises(ValueError, match=text):
        ResNet(*settings)


def test_backbone_normalises_each_channel():
    backbone = Backbone(nn.Identity(), [0.1, 0.2, 0.5], [0.5, 0.25, 2.0], CLASSES, (3, 1, 1))
    pixels = torch.tensor([0.6, 0.7, 0.5]).view(1, 3, 1, 1)
    assert backbone(pixels).flatten().tolist() == pytest.approx([1.0, 2.0, 0.0])
    assert backbone.state_dict() == {}
    assert backbone.classes == CLASSES
    assert backbone.device == CPU


def test_digest_is_of_content():
    base = network()
    assert digest(base) == digest(network())
    with torch.no_grad():
        weight, buffer, counter = network(), network(), network()
        weight.network.fc.weight[0, 0] += 1e-6
        buffer.network.bn1.running_mean[0] += 1e-6
        counter.network.bn1.num_batches_tracked += 1
    mean = Backbone(base.network, [0.41], [0.3], CLASSES, (1, 8, 8))
    std = Backbone(base.network, [0.4], [0.31], CLASSES, (1, 8, 8))
    structure = network()
    structure.network.conv3.stride = (1, 1)
    others = [weight, buffer, counter, mean, std, structure, network(seed=1)]
    assert len({digest(b) for b in (base, *others)}) == 1 + len(others)


def test_digest_does_not_depend_on_the_memory_format():
    turned = network()
    turned.network.to(memory_format=torch.channels_last)
    assert digest(turned) == digest(network())


# building


def test_every_backbone_file_builds_and_takes_images():
    for name in ("resnet18", "small_cnn", "torchvision_resnet18"):
        config = load_member("backbone", name)
        if "width" in config:
            config["width"] = 4
        net = build_network(network_config(config, classes=7, channels=3)).eval()
        with torch.inference_mode():
            assert net(torch.zeros(2, 3, 32, 32)).shape == (2, 7), name


def test_arguments_say_what_a_class_calls_classes_and_channels():
    config = load_member("backbone", "torchvision_resnet18")
    assert network_config(config, 7, 3) == {
        "_target_": "torchvision.models.resnet18",
        "arguments": {"weights": None, "num_classes": 7},
    }
    assert network_config(SMALL | {"checkpoint": "x", "name": "y"}, 3, 1)["arguments"] == {
        "width": 4,
        "classes": 3,
        "channels": 1,
    }


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"_target_": "gradbench.nowhere.Net"}, "gradbench.nowhere.Net cannot be imported"),
        ({**SMALL, "depth": 3}, r"refuses its arguments \(.*depth.*it takes \(classes"),
        ({"_target_": "gradbench.backbones.resnet.ResNet", "depth": 7}, "depth 7: choose from 18"),
        (
            {"_target_": "fractions.Fraction", "arguments": {"classes": None, "channels": None}},
            "_target_=fractions.Fraction builds no module",
        ),
    ],
)
def test_a_network_that_cannot_be_built_is_one_sentence(config, text):
    with pytest.raises(GradbenchError, match=text) as caught:
        build_network(network_config(config, 3, 1))
    assert "\n" not in str(caught.value)


# step 1 as a whole


def request_for(config=SMALL, **recipe) -> NetworkRequest:
    settings = {"epochs": 2, "batch": 16, "pad": 0, "flip": False, "precision": "float32"}
    return NetworkRequest(config, Recipe(**settings | recipe), 0, (0.4,), (0.3,), CPU)


def test_a_network_is_trained_once_and_found_again(store):
    train, test = images(60), images(30, seed=1)
    assert find_network(request_for(), train, store) is None
    first = load_or_train(request_for(), train, test, store)
    assert first.origin == "trained"
    assert len(first.history["loss"]) == 2
    assert not first.backbone.training
    assert first.weights == digest(first.backbone)
    assert [key.step for key in store.made] == ["network"]
    again = Store(store.root)
    second = load_or_train(request_for(), train, test, again)
    assert again.made == []
    assert second.weights == first.weights
    assert second.history == first.history
    assert digest(find_network(request_for(), train, again)) == first.weights


def test_a_checkpoint_takes_the_place_of_training(store, tmp_path):
    train, test = images(60), images(30, seed=1)
    trained = load_or_train(request_for(), train, test, store)
    (weights,) = store.root.rglob("network.safetensors")
    config = {**SMALL, "checkpoint": str(weights)}
    loaded = load_or_train(request_for(config), train, test, Store(tmp_path / "other"))
    assert loaded.weights == trained.weights
    assert loaded.origin == "network.safetensors"
    assert loaded.history == {}
    assert digest(find_network(request_for(config), train, store)) == trained.weights


@pytest.mark.parametrize(
    "change", [{"epochs": 3}, {"lr": 0.2}, {"pad": 1}, {"flip": True}, {"weight_decay": 0.0}]
)
def test_key_of_a_network_depends_on_the_recipe(change):
    assert request_for(**change).key(images()).digest != request_for().key(images()).digest


def test_key_of_a_network_depends_on_images_seed_and_normalisation():
    base = request_for()
    keys = {
        base.key(images()).digest,
        base.key(images(seed=1)).digest,
        NetworkRequest(SMALL, base.recipe, 1, (0.4,), (0.3,), CPU).key(images()).digest,
        NetworkRequest(SMALL, base.recipe, 0, (0.5,), (0.3,), CPU).key(images()).digest,
        request_for({**SMALL, "width": 5}).key(images()).digest,
    }
    assert len(keys) == 5
    described = {**SMALL, "description": "words", "name": "other"}
    assert request_for(described).key(images()).digest in keys


def test_initial_weights_follow_the_seed():
    first, same = initial_network(request_for(), images()), initial_network(request_for(), images())
    assert digest(first) == digest(same)
    other = NetworkRequest(SMALL, request_for().recipe, 1, (0.4,), (0.3,), CPU)
    assert digest(initial_network(other, images())) != digest(first)


def test_images_that_do_not_fit_are_one_sentence(store):
    train = images(60)
    load_or_train(request_for(), train, images(30), store)
    with pytest.raises(GradbenchError, match=r"cannot take images of shape \(2, 8, 8\) from toy"):
        load_or_train(request_for(), train, images(30, channels=2), store)


def test_outputs_that_are_no_classes_are_one_sentence(store, tmp_path):
    path = tmp_path / "tiny.pt"
    torch.save(TinyNet(5).state_dict(), path)
    config = {
        "_target_": "_dummies.TinyNet",
        "arguments": {"classes": None},
        "classes": 5,
        "checkpoint": str(path),
    }
    with pytest.raises(GradbenchError, match=r"outputs of shape \(5,\).*toy has 3 classes"):
        load_or_train(request_for(config), images(30), images(30), store)
