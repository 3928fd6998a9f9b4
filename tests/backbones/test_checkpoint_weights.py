"""Checkpoints as people have them: containers, prefixes, averages, kinds of numbers and files."""

import argparse
import gzip
import io
import pickle
from collections import Counter, OrderedDict

import numpy as np
import pytest
import torch
from _dummies import TinyNet
from safetensors.torch import save_file
from torch import nn

from gradbench.backbones.checkpoint import load_checkpoint
from gradbench.backbones.densenet import DenseNet
from gradbench.errors import GradbenchError, printable


def lively() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    net = TinyNet()
    net.bn.running_mean.normal_()
    net.bn.num_batches_tracked.fill_(5)
    return net.state_dict()


GOOD = lively()
OTHER = {name: tensor * 0 + 7 for name, tensor in GOOD.items()}


class Wrapped(nn.Module):
    """A network whose own names begin with a word that is a prefix elsewhere."""

    def __init__(self):
        super().__init__()
        self.model = TinyNet()


class Deep(nn.Module):
    """Names in the middle of which `module` is the network's own."""

    def __init__(self):
        super().__init__()
        self.module = nn.Sequential(TinyNet(), nn.Identity())


def under(prefix: str, state=GOOD) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


def with_(**more) -> dict[str, torch.Tensor]:
    return {**GOOD, **{name.replace("__", "."): value for name, value in more.items()}}


def loaded(tmp_path, held, net=None) -> str:
    """Load what is held; check that the weights are the good ones; return what was said."""
    path = tmp_path / "f.pt"
    torch.save(held, path)
    net = net or TinyNet()
    about = load_checkpoint(net, path)
    tiny = next(module for module in net.modules() if isinstance(module, TinyNet))
    for name, tensor in tiny.state_dict().items():
        assert tensor.dtype == GOOD[name].dtype
        assert torch.equal(tensor, GOOD[name]), name
    return about.get("note", "")


def refused(path, net=None) -> str:
    net = net or TinyNet()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.raises(GradbenchError) as caught:
        load_checkpoint(net, path)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"backbone.checkpoint={path}")
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    return text


PREFIXES = [
    *("module.", "_orig_mod.", "model.", "net.", "network.", "backbone."),
    *("module._orig_mod.", "net._orig_mod.module.model.", "_forward_module.model."),
]
CONTAINERS = [
    *("state_dict", "model", "net", "model_state_dict", "params", "weights", "network"),
    "model.state_dict.net",
]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefixes_in_any_order(tmp_path, prefix):
    assert loaded(tmp_path, under(prefix)) == ""


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("prefix", ["", "module.", "model._orig_mod."])
def test_containers_in_each_other(tmp_path, container, prefix):
    held = OrderedDict(under(prefix))
    for name in reversed(container.split(".")):
        held = {"epoch": 3, name: held, "best": torch.tensor(0.9), "optimizer": {"state": {}}}
    assert loaded(tmp_path, held) == ""


WRAPPED = {
    "compiled layer": {k.replace("fc.", "fc._orig_mod."): v for k, v in GOOD.items()},
    "parallel layer": {k.replace("conv.", "conv.module."): v for k, v in GOOD.items()},
    "FSDP": under("_fsdp_wrapped_module.", {k.replace("bn.", "bn._fsdp_wrapped_module."): v
                                            for k, v in GOOD.items()}),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRAPPED)
def test_wrappers_in_the_middle_of_names(tmp_path, kind):
    assert loaded(tmp_path, WRAPPED[kind]) == ""


@pytest.mark.parametrize("prefix", ["", "model.", "module.model.", "model.model.", "net.model."])
def test_a_network_whose_own_names_begin_with_such_a_word(tmp_path, prefix):
    assert loaded(tmp_path, {"state_dict": under(prefix)}, Wrapped()) == ""


@pytest.mark.parametrize("prefix", ["module.0.", "module.module.0.", "_orig_mod.module.0."])
def test_a_wrappers_name_that_is_the_networks_own(tmp_path, prefix):
    assert loaded(tmp_path, under(prefix), Deep()) == ""


NOT_USED = [
    ({"model": GOOD, "model_ema": under("module.", OTHER)}, "'model_ema'"),
    ({"state_dict": GOOD, "state_dict_ema": OTHER}, "'state_dict_ema'"),
    ({"ema": OTHER, "epoch": 1, "net": under("module.")}, "'ema'"),
    ({"params_ema": OTHER, "params": GOOD}, "'params_ema'"),
    ({"model": GOOD, "ema": {"module": OTHER, "decay": 0.9}}, "'ema.module'"),
    ({"student": GOOD, "teacher": OTHER}, "'teacher'"),
    ({"model": GOOD, "net": OTHER}, "'net'"),
]


@pytest.mark.parametrize("number", range(len(NOT_USED)))
def test_ordinary_weights_are_taken_and_what_lies_beside_is_said(tmp_path, capsys, number):
    held, place = NOT_USED[number]
    note = loaded(tmp_path, held)
    assert f"weights under {place} were not used" in note
    assert note in capsys.readouterr().err


@pytest.mark.parametrize(
    ("held", "place"),
    [({"ema": GOOD, "epoch": 1}, "ema"), ((GOOD, 3), "0"), (under("student."), "student."),
     ({"generator": {"x.weight": GOOD["bn.bias"]}, "critic": GOOD}, "critic")],
)  # fmt: skip
def test_weights_of_an_unusual_place_are_said(tmp_path, held, place):
    assert loaded(tmp_path, held) == f"the weights under '{place}' were taken"


def test_the_same_weights_twice_are_nothing_to_say(tmp_path):
    assert (
        loaded(tmp_path, {"model": GOOD, "state_dict": {k: v + 0 for k, v in GOOD.items()}}) == ""
    )


def test_tensors_outside_the_prefix_are_said(tmp_path):
    held = {"state_dict": under("model.") | {"loss.weight": torch.ones(3)}}
    assert loaded(tmp_path, held) == "tensors beside them were not used: loss.weight"
    note = loaded(tmp_path, under("net.") | under("ema_net.module.", OTHER))
    assert note.startswith("tensors beside them were not used: ema_net.")
    assert note.endswith("and 4 more")


def test_several_unusual_places_are_refused(tmp_path):
    torch.save({"alice": GOOD, "bob": OTHER}, tmp_path / "f.pt")
    assert "several sets of weights that fit, under 'alice', 'bob'" in refused(tmp_path / "f.pt")


def test_a_layer_of_the_same_shape_elsewhere_is_not_the_network(tmp_path):
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    held = {f"deep.{n}": t for n, t in net.state_dict().items()} | {"head.weight": torch.ones(2)}
    torch.save(held, tmp_path / "f.pt")
    assert "is of another network" in refused(tmp_path / "f.pt", nn.Sequential(*net))


COUNTERS = {
    "averaged": {**under("module."), "n_averaged": torch.tensor(3)},
    "thop": with_(total_ops=torch.zeros(1), conv__total_ops=torch.ones(1),
                  total_params=torch.ones(1)),
    "no bias": {**GOOD, "fc.num_batches_tracked": torch.tensor(1)},
}  # fmt: skip


@pytest.mark.parametrize("kind", COUNTERS)
def test_counters_are_left_out(tmp_path, kind):
    assert loaded(tmp_path, COUNTERS[kind]) == ""


def test_densenet_without_counters_loads(tmp_path):
    first, second = DenseNet(10, 4, growth=2), DenseNet(10, 4, growth=2)
    state = {k: v for k, v in first.state_dict().items() if "num_batches" not in k}
    save_file(state, tmp_path / "f.safetensors")
    load_checkpoint(second, tmp_path / "f.safetensors")
    assert all(map(torch.equal, first.state_dict().values(), second.state_dict().values()))


def test_old_scalars_of_one_number_load(tmp_path):
    held = with_(bn__num_batches_tracked=torch.tensor([5]))
    assert loaded(tmp_path, held) == ""


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_the_networks(tmp_path, kind):
    torch.save({n: t.to(kind) if t.is_floating_point() else t for n, t in GOOD.items()},
               tmp_path / "f.pt")  # fmt: skip
    net = TinyNet()
    load_checkpoint(net, tmp_path / "f.pt")
    for name, tensor in net.state_dict().items():
        expected = (
            GOOD[name].to(kind).to(GOOD[name].dtype)
            if GOOD[name].is_floating_point()
            else GOOD[name]
        )
        assert torch.equal(tensor, expected)


weight = GOOD["fc.weight"]
NUMBERS = {
    "int8": (lambda t: (t * 50).to(torch.int8), "holds int8 numbers in"),
    "quantised": (lambda t: torch.quantize_per_tensor(t, 0.01, 0, torch.qint8), "no plain numbers"),
    "nested": (lambda t: torch.nested.nested_tensor(list(t)), "no plain numbers"),
    "meta": (lambda t: t.to("meta"), "no plain numbers"),
    "complex": (lambda t: t.to(torch.complex64), "holds complex64 numbers in"),
    "too large": (lambda t: t.double() * 1e300, "NaN or infinity in"),
    "sparse": (lambda _: torch.sparse_coo_tensor(size=(10**6, 10**6)), "no plain numbers"),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("everywhere", [True, False])
@pytest.mark.parametrize("kind", NUMBERS)
def test_numbers_that_are_no_weights_are_named(tmp_path, kind, everywhere):
    change, text = NUMBERS[kind]
    names = [n for n, t in GOOD.items() if everywhere and t.is_floating_point()] or ["fc.weight"]
    torch.save({**GOOD, **{name: change(GOOD[name]) for name in names}}, tmp_path / "f.pt")
    assert names[0] in refused(tmp_path / "f.pt")
    assert text in refused(tmp_path / "f.pt")


def test_a_mask_of_minus_infinity_is_no_fault(tmp_path):
    class Masked(TinyNet):
        def __init__(self):
            super().__init__()
            self.register_buffer("mask", torch.full((2, 2), -torch.inf).triu(1))

    held = with_(mask=Masked().mask)
    torch.save(held, tmp_path / "f.pt")
    assert load_checkpoint(Masked(), tmp_path / "f.pt") == {}
    torch.save(with_(mask=Masked().mask.T), tmp_path / "f.pt")
    assert "NaN or infinity in mask" in refused(tmp_path / "f.pt", Masked())


def test_a_buffer_that_the_network_makes_itself_may_be_left_over(tmp_path):
    net = TinyNet()
    net.register_buffer("index", torch.arange(3), persistent=False)
    assert loaded(tmp_path, with_(index=torch.arange(3)), net) == ""
    torch.save(with_(index=torch.arange(1, 4)), tmp_path / "f.pt")
    assert "has besides index" in refused(tmp_path / "f.pt", net)


@pytest.mark.parametrize("ending", ["pt", "bin", "ckpt", "safetensors", "weights"])
def test_safetensors_are_known_by_their_content(tmp_path, ending):
    save_file(GOOD, tmp_path / f"f.{ending}")
    net = TinyNet()
    load_checkpoint(net, tmp_path / f"f.{ending}")
    assert torch.equal(net.fc.weight, GOOD["fc.weight"])


def test_files_of_torch_before_zip_load(tmp_path):
    torch.save(GOOD, tmp_path / "f.pth", _use_new_zipfile_serialization=False)
    net = TinyNet()
    load_checkpoint(net, tmp_path / "f.pth")
    assert torch.equal(net.fc.weight, GOOD["fc.weight"])


def bytes_of(write) -> bytes:
    stream = io.BytesIO()
    write(stream)
    return stream.getvalue()


WHOLE = bytes_of(lambda f: torch.save(GOOD, f))
FILES = {
    "empty": b"",
    "LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
    "HTML": b"\n<!DOCTYPE html><html><head></head>",
    "HDF5": b"\x89HDF\r\n\x1a\n\0\0",
    "npz": bytes_of(lambda f: np.savez(f, a=np.ones(2))),
    "gzip": gzip.compress(WHOLE),
    "pickle": pickle.dumps({"a": 1}),
    "half": WHOLE[: len(WHOLE) // 2],
    "end": WHOLE[:-20],
    "half safetensors": (1000).to_bytes(8, "little") + b'{"a":',
    "noise": bytes(range(200, 256)) * 5,
}


@pytest.mark.parametrize("ending", ["pt", "safetensors"])
@pytest.mark.parametrize("kind", FILES)
def test_of_files_of_other_kinds_the_beginning_is_told(tmp_path, kind, ending):
    path = tmp_path / f"f.{ending}"
    path.write_bytes(FILES[kind])
    text = refused(path)
    assert "cannot be read as safetensors or as a torch file of weights only" in text
    assert printable(f"begins with {FILES[kind][:24]!r}") in text


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_program_of_torchscript_is_refused(tmp_path):
    torch.jit.script(nn.Linear(2, 2)).save(tmp_path / "f.pt")
    assert "TorchScript" in refused(tmp_path / "f.pt")


@pytest.mark.parametrize("zipped", [True, False])
def test_of_a_pickled_network_the_way_to_its_weights_is_told(tmp_path, zipped):
    """And the two lines do what they are told for."""
    path, other = tmp_path / "f.pth", tmp_path / "g.pt"
    net = TinyNet()
    net.load_state_dict(GOOD)
    torch.save(net, path, _use_new_zipfile_serialization=zipped)
    text = refused(path)
    assert f"it holds {TinyNet.__module__}.TinyNet, a Python object that could execute" in text
    lines = text.partition("import the class: ")[2].rstrip(")") + ")"
    assert lines.count(";") == 1
    exec(lines, {"torch": torch, "FILE": path, "OTHER": other})
    again = TinyNet()
    assert load_checkpoint(again, other) == {}
    assert torch.equal(again.fc.weight, GOOD["fc.weight"])


def test_what_is_called_safetensors_never_gets_to_a_reader_of_pickles(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "load", None)
    (tmp_path / "f.safetensors").write_bytes(WHOLE)
    assert "cannot be read as safetensors" in refused(tmp_path / "f.safetensors")


@pytest.mark.parametrize(
    ("held", "text"),
    [({}, "no tensors by name, but a dict of nothing"),
     ({"epoch": 1, "args": argparse.Namespace()}, "no tensors by name, but a dict of epoch, args"),
     ({n: t.numpy() for n, t in GOOD.items()}, "of conv.weight, bn.weight, bn.bias and 5 more"),
     (Counter(a=3), "no tensors by name")],
)  # fmt: skip
def test_dictionaries_without_tensors(tmp_path, held, text):
    torch.save(held, tmp_path / "f.pt")
    assert text in refused(tmp_path / "f.pt")


def test_what_is_missing_and_left_over_is_said_of_the_nearest_set(tmp_path):
    state = under("module.", {n: t for n, t in GOOD.items() if n != "fc.bias"})
    torch.save({"model": state | {"module.head.a": weight}, "ema": {"x.weight": weight}},
               tmp_path / "f.pt")  # fmt: skip
    text = refused(tmp_path / "f.pt")
    assert "lacks fc.bias; has besides head.a" in text
    assert "under 'model" in text
    assert "prefixes such as module. and model. were tried, and 'ema', which are further" in text
    torch.save({f"a.{i}.weight": weight for i in range(9)}, tmp_path / "f.pt")
    text = refused(tmp_path / "f.pt")
    assert "lacks conv.weight, bn.weight, bn.bias and 4 more" in text
    assert "has besides a.0.weight, a.1.weight, a.2.weight and 6 more" in text


def test_a_file_of_lightning_loads(tmp_path):
    """Its layout, as `Trainer.save_checkpoint` writes it, with a loss and a metric beside."""
    held = {
        **{"epoch": 1, "global_step": 20, "pytorch-lightning_version": "2.5.1", "loops": {}},
        "state_dict": OrderedDict(under("model.") | {"criterion.weight": torch.ones(3)}),
        "callbacks": {"ModelCheckpoint{'monitor': 'val'}": {"best_model_score": torch.tensor(0.9)}},
        "optimizer_states": [{"state": {0: {"momentum_buffer": OTHER["fc.bias"]}}}],
        "lr_schedulers": [{"last_epoch": 1}],
        "hparams_name": "kwargs",
        "hyper_parameters": {"args": argparse.Namespace(lr=0.1)},
    }
    assert loaded(tmp_path, held) == "tensors beside them were not used: criterion.weight"


def test_half_precision_under_a_prefix_without_counters_loads(tmp_path):
    half = {n: t.half() for n, t in GOOD.items() if "num_batches" not in n}
    torch.save({"net": under("module.model.", half)}, tmp_path / "f.pt")
    net = TinyNet()
    assert load_checkpoint(net, tmp_path / "f.pt") == {}
    assert torch.equal(net.fc.weight, GOOD["fc.weight"].half().float())


def test_a_container_that_holds_itself(tmp_path):
    held: dict = {"model": GOOD}
    held["self"] = held
    assert loaded(tmp_path, held) == ""
