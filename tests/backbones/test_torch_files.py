"""Harmless objects beside weights are read by stand-ins, and no class of a file is ever called."""

import argparse
import builtins
import collections
import datetime
import io
import pathlib
import pickle
import struct
import sys
import types
import zipfile

import numpy as np
import omegaconf
import pytest
import torch
from torch import nn

from gradbench.backbones.checkpoint import load_checkpoint
from gradbench.backbones.checkpoint_files import STAND_INS, read_torch_file
from gradbench.errors import GradbenchError

HARMLESS = [
    argparse.Namespace(lr=0.1, names=["a"]),
    *(np.float32(1.5), np.float64(2), np.int64(3), np.bool_(True), np.arange(3), np.dtype("f4")),
    np.array(["a", None], dtype=object),
    types.SimpleNamespace(a=1),
    collections.defaultdict(list, {"a": [1]}),
    *(pathlib.Path("a/b"), pathlib.PurePosixPath("a")),
    *(datetime.datetime.now(datetime.UTC), datetime.timedelta(3)),
    *(range(3), slice(1, 2), frozenset([1])),
    omegaconf.OmegaConf.create({"a": [1, {"b": "c"}], "none": None, "real": 2.5, "yes": True}),
    torch.__version__,
]


@pytest.mark.parametrize("thing", HARMLESS, ids=lambda thing: type(thing).__name__)
def test_harmless_objects_beside_the_weights(tmp_path, thing):
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    held = {"args": thing, "state_dict": first.state_dict(), "again": [thing]}
    torch.save(held, tmp_path / "f.pt")
    assert load_checkpoint(second, tmp_path / "f.pt") == {}
    assert torch.equal(first.weight, second.weight)


def test_a_kind_of_dictionary_may_hold_the_weights(tmp_path):
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    held = collections.defaultdict(list, state_dict=first.state_dict())
    torch.save(held, tmp_path / "f.pt")
    load_checkpoint(second, tmp_path / "f.pt")
    assert torch.equal(first.weight, second.weight)


# A pickle written by hand: a file may say anything of a class, not just what the class would.


def name(path: str) -> bytes:
    module, _, last = path.rpartition(".")
    return b"c" + f"{module}\n{last}\n".encode()


def text(words: str) -> bytes:
    return b"X" + struct.pack("<I", len(words)) + words.encode()


def file_of(place: pathlib.Path, body: bytes) -> pathlib.Path:
    """Write a file of torch that holds {"x": body, "w": 1}."""
    with zipfile.ZipFile(place, "w") as archive:
        content = b"\x80\x02}(" + text("x") + body + text("w") + b"K\x01u."
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
    return place


def pickled_evil(trace: str) -> bytes:
    """Return what would write a file named by `trace` when it is unpickled."""
    return name("builtins.open") + b"(" + text(trace) + text("w") + b"tR"


@pytest.mark.parametrize("known", sorted(STAND_INS))
def test_no_class_of_the_list_is_imported_or_called(tmp_path, monkeypatch, known):
    """Whatever a file makes of an allowed name: a call, a new object, a state, entries."""
    module, _, last = known.rpartition(".")
    called = []

    class Real:
        def __new__(cls, *given):
            called.append(given)
            return object.__new__(cls)

        def __setstate__(self, state):
            called.append(state)

    if module != "builtins":
        fake = types.ModuleType(module)
        setattr(fake, last, Real)
        monkeypatch.setitem(sys.modules, module, fake)
    real = getattr(builtins, last) if module == "builtins" else Real
    arguments = b"(" + text("__import__('os').system('touch x')") + name(known) + b"t"
    state = b"}(" + text("__class__") + name(known) + text("keys") + name(known) + b"u"
    for body in (
        name(known) + arguments + b"R",
        name(known) + arguments + b"\x81",
        name(known) + b")R" + state + b"b",
        name(known) + b")\x81" + state + b"b",
        name(known) + b")R(" + text("a") + b"K\x01" + b"u",
        name(known) + b")R(" + text("a") + b"K\x01" + b"e",
    ):
        path = file_of(tmp_path / "f.pt", body)
        try:
            found = read_torch_file(path)["x"]
        except pickle.UnpicklingError:  # entries of what is no container, a state of what is plain
            continue
        assert found is not real
        assert type(found) in {collections.OrderedDict, *STAND_INS.values()}
    assert not called


@pytest.mark.parametrize("known", sorted(STAND_INS))
def test_code_beside_or_inside_an_allowed_name_is_refused(tmp_path, known):
    trace = tmp_path / "executed"
    evil = pickled_evil(str(trace))
    for body in (
        name(known) + b"(" + evil + b"tR",
        name(known) + b"(" + evil + b"t\x81",
        name(known) + b")R}(" + text("a") + evil + b"ub",
        # the allowed object as the function that is called, and as its attribute
        name(known) + b")R(" + evil + b"tR",
    ):
        path = file_of(tmp_path / "f.pt", body)
        with pytest.raises(GradbenchError, match=r"weights only .*it holds .*open"):
            load_checkpoint(nn.Linear(2, 2), path)
    assert not trace.exists()
    pickle.loads(b"\x80\x02" + evil + b".").close()
    assert trace.exists()  # the pickle would have done it


@pytest.mark.parametrize(
    "known", ["os.system", "builtins.eval", "builtins.getattr", "functools.partial", "posix.system",
              "operator.attrgetter", "numpy.load", "torch.hub.load", "copyreg._reconstructor",
              "omegaconf.OmegaConf", "argparse.FileType", "pathlib.os.system"],
)  # fmt: skip
def test_any_other_name_is_refused(tmp_path, known):
    with pytest.raises(GradbenchError, match="a Python object that could execute code"):
        load_checkpoint(nn.Linear(2, 2), file_of(tmp_path / "f.pt", name(known)))


def test_names_hidden_by_a_dictionarys_own_state_do_no_harm(tmp_path):
    state = b"}(" + b"".join(text(n) + name("torch.Size") for n in ("items", "keys", "get")) + b"u"
    held = name("collections.OrderedDict") + b")R(" + text("a") + b"K\x01u" + state + b"b"
    with pytest.raises(GradbenchError, match="no tensors by name"):
        load_checkpoint(nn.Linear(2, 2), file_of(tmp_path / "f.pt", held))


def test_the_list_is_for_our_reading_alone(tmp_path):
    stream = io.BytesIO()
    torch.save({"args": argparse.Namespace()}, stream)
    (tmp_path / "f.pt").write_bytes(stream.getvalue())
    before = set(torch.serialization.get_safe_globals())
    read_torch_file(tmp_path / "f.pt")
    assert set(torch.serialization.get_safe_globals()) == before
    stream.seek(0)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(stream, weights_only=True)
