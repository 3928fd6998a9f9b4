"""Networks on disk: what comes back, and what is refused."""

import pickle

import pytest
import torch
from _dummies import TinyNet, network

from gradbench.backbones.checkpoint import load_checkpoint, read_checkpoint, save_checkpoint
from gradbench.backbones.resnet import ResNet
from gradbench.backbones.small_cnn import SmallCNN
from gradbench.errors import GradbenchError


def refused(path, net=None) -> str:
    with pytest.raises(GradbenchError) as caught:
        load_checkpoint(net or TinyNet(), path)
    text = str(caught.value)
    assert "\n" not in text
    assert f"backbone.checkpoint={path}" in text
    return text


def same(first, second) -> bool:
    pairs = zip(first.state_dict().items(), second.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


def test_safetensors_come_back_bit_for_bit(tmp_path):
    net = network().network
    net.bn1.num_batches_tracked += 7
    save_checkpoint(tmp_path / "f.safetensors", net, {"accuracy": 0.5, "classes": ["a", "b"]})
    other = SmallCNN(3, 1, 4)
    assert load_checkpoint(other, tmp_path / "f.safetensors") == {
        "accuracy": 0.5,
        "classes": ["a", "b"],
    }
    assert same(net, other)


def test_bfloat16_halves_the_file_and_comes_back_as_float32(tmp_path):
    net = ResNet(18, 10, width=8)
    save_checkpoint(tmp_path / "full.safetensors", net, {})
    save_checkpoint(tmp_path / "half.safetensors", net, {}, torch.bfloat16)
    sizes = [(tmp_path / f"{n}.safetensors").stat().st_size for n in ("half", "full")]
    assert 0.5 < sizes[0] / sizes[1] < 0.6
    other = ResNet(18, 10, width=8)
    load_checkpoint(other, tmp_path / "half.safetensors")
    for tensor, original in zip(other.state_dict().values(), net.state_dict().values()):
        assert tensor.dtype == original.dtype
        if tensor.is_floating_point():
            assert torch.equal(tensor, original.to(torch.bfloat16).float())
    assert other.bn1.num_batches_tracked.dtype == torch.int64


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("writer", ["pickle", "torch", "inside"])
def test_code_in_a_file_is_refused_and_not_executed(tmp_path, writer):
    trace, path = tmp_path / "executed", tmp_path / "f.pt"
    evil = Evil(str(trace))
    if writer == "pickle":
        path.write_bytes(pickle.dumps(evil, protocol=2))
    elif writer == "torch":
        torch.save(evil, path)
    else:
        torch.save({"state_dict": TinyNet().state_dict(), "extra": evil}, path)
    text = refused(path)
    assert "weights only" in text
    assert not trace.exists()
    pickle.loads(pickle.dumps(evil)).close()
    assert trace.exists()  # the file would have done it


def test_a_whole_module_is_refused_by_name(tmp_path):
    torch.save(TinyNet(), tmp_path / "f.pt")
    assert "_dummies.TinyNet, a Python object that could" in refused(tmp_path / "f.pt")


@pytest.mark.parametrize("name", ["conv.weight", "bn.running_var", "fc.bias"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite(tmp_path, name, value):
    state = TinyNet().state_dict()
    state[name].view(-1)[0] = value
    torch.save(state, tmp_path / "f.pt")
    net = TinyNet()
    before = [p.clone() for p in net.parameters()]
    assert f"holds NaN or infinity in {name}" in refused(tmp_path / "f.pt", net)
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters()))


def test_another_number_of_classes(tmp_path):
    save_checkpoint(tmp_path / "f.safetensors", TinyNet(classes=10), {})
    text = refused(tmp_path / "f.safetensors", TinyNet(classes=3))
    assert text.endswith("has 10 classes, the data set has 3")


def test_another_width(tmp_path):
    save_checkpoint(tmp_path / "f.safetensors", SmallCNN(3, 1, 8), {})
    text = refused(tmp_path / "f.safetensors", SmallCNN(3, 1, 4))
    assert "conv1.weight has shape (8, 1, 3, 3), the configured network (4, 1, 3, 3)" in text
    assert "look at the settings of the backbone (backbone.width" in text


def test_missing_and_additional_names(tmp_path):
    state = TinyNet().state_dict()
    del state["fc.bias"], state["fc.weight"]
    state["head.weight"] = torch.ones(1)
    torch.save(state, tmp_path / "f.pt")
    text = refused(tmp_path / "f.pt")
    assert "another network than the configured TinyNet" in text
    assert "lacks fc.weight, fc.bias; has besides head.weight" in text


def test_a_missing_file(tmp_path):
    assert "there is no such file" in refused(tmp_path / "f.safetensors")
    assert "there is no such file" in refused(tmp_path)


@pytest.mark.parametrize("content", [[torch.ones(2)], torch.ones(2), "words", 5])
def test_a_torch_file_of_something_else(tmp_path, content):
    torch.save(content, tmp_path / "f.pt")
    assert f"holds a {type(content).__name__}, not a state dict" in refused(tmp_path / "f.pt")


def test_names_that_are_no_text(tmp_path):
    torch.save({1: torch.ones(2)}, tmp_path / "f.pt")
    assert list(read_checkpoint(tmp_path / "f.pt")[0]) == [1]
    assert "another network" in refused(tmp_path / "f.pt")
