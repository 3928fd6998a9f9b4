"""Checkpoint files: their kind, known by content, and torch's files read without executing any.

torch's own reader of weights knows tensors and plain containers. The names of a few more classes
are let through, each replaced by a stand-in of ours that takes whatever the file says and does
nothing with it: the classes themselves are neither imported nor called, so the list names what is
common beside weights, and a wrong name on it could execute nothing. Any other name is refused.
"""

from __future__ import annotations

import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch.serialization import safe_globals

SAVE_STATE = "torch.save(network.state_dict(), FILE)"
CONVERT = f"give the weights to the network in torch and write them with {SAVE_STATE}"

_LEGACY_TORCH = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
"""How files of torch before 1.6 begin: a pickle of torch's magic number."""

_SIGNATURES = (
    (0, b"version https://git-lfs", "a Git LFS pointer that stands for the file: run git lfs pull"),
    (0, b"\x89HDF\r\n\x1a\n", f"HDF5, as Keras writes: {CONVERT}"),
    (0, b"\x93NUMPY", f"a numpy array: {CONVERT}"),
    (0, b"GGUF", f"GGUF, the quantised weights of llama.cpp: {CONVERT}"),
    (4, b"TFL3", f"a TensorFlow Lite network: {CONVERT}"),
    (0, b"\x1f\x8b", "compressed by gzip: unpack it"),
    (0, b"BZh", "compressed by bzip2: unpack it"),
    (0, b"\xfd7zXZ\x00", "compressed by xz: unpack it"),
    (0, b"\x28\xb5\x2f\xfd", "compressed by zstd: unpack it"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it"),
    (0, b"Rar!", "a RAR archive: unpack it"),
    (257, b"ustar", "a tar archive: unpack it"),
)
"""(Offset, bytes there, what the file is and what to do with it)."""
_WEIGHTS = (".pt", ".pth", ".bin", ".ckpt", ".safetensors", ".tar", ".h5", ".onnx")


def unreadable_reason(path: Path) -> str:
    """Return what a file is and what to do; empty if it is safetensors or a file of torch.

    Raises:
        OSError: if it cannot be read.
    """
    size = path.stat().st_size
    with open(path, "rb") as stream:
        head = stream.read(4096)
    if not head:
        return "it is empty: fetch it again"
    if is_safetensors(path):
        end = 8 + int.from_bytes(head[:8], "little")
        return "" if end <= size else "it is cut short: fetch it again"
    if head.startswith(b"PK"):
        return _archive_reason(path)
    if head.startswith(_LEGACY_TORCH):
        return ""
    for offset, signature, description in _SIGNATURES:
        if head[offset:].startswith(signature):
            return f"it is {description}"
    if head[:1] == b"\x80" and head[1:2] <= b"\x05":
        return (
            "it is a Python pickle that torch.save did not write, and reading one can execute "
            f"code: where you trust its source, write the weights alone with {SAVE_STATE}"
        )
    if path.suffix == ".onnx" or (head[:1] == b"\x08" and head[2:3] == b"\x12"):
        return f"it is an ONNX network: write the weights where it was exported with {SAVE_STATE}"
    return _text_reason(head)


def is_safetensors(path: Path) -> bool:
    """Tell whether a file begins as safetensors do: the length of a JSON object, and that."""
    with open(path, "rb") as stream:
        head = stream.read(10)
    return len(head) == 10 and head[8:9] == b"{" and head[6:8] == b"\0\0"


def _archive_reason(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        return "it is cut short or damaged: fetch it again"
    inner = {name.partition("/")[2] or name for name in names}
    if "constants.pkl" in inner or any(name.startswith("code/") for name in inner):
        save = "torch.save(torch.jit.load(OLD).state_dict(), FILE)"
        return f"it is a TorchScript archive, a program: write its weights alone with {save}"
    if "data.pkl" in inner:
        return ""
    if any("exported_program" in name or name == "archive_format" for name in inner):
        save = "torch.save(torch.export.load(OLD).state_dict, FILE)"
        return f"it is a program of torch.export: write its weights alone with {save}"
    if "model.weights.h5" in names:
        return f"it is a Keras network: {CONVERT}"
    if names and all(name.endswith(".npy") for name in names):
        return f"it is an archive of numpy arrays: {CONVERT}"
    likely = [name for name in names if name.endswith(_WEIGHTS)] or names
    listed = ", ".join(likely[:3]) + (f" and {len(likely) - 3} more" if len(likely) > 3 else "")
    return f"it is a zip archive of {listed or 'nothing'}: unpack it and name the file of weights"


def _text_reason(head: bytes) -> str:
    try:
        text = head[:1024].decode("utf-8", "strict" if len(head) < 1024 else "ignore").strip()
    except UnicodeDecodeError:
        text = ""
    text = " ".join(text.split())
    if not text or not text.isprintable():
        return "its content is of no known kind: fetch it again"
    if text.startswith("<"):
        page = "a page of HTML" if "html" in text.lower() else "XML"
        return f"it is {page}, as a server sends in place of a file: fetch the file itself"
    if b'"weight_map"' in head:
        return "it is the index of a network kept in several files: put their tensors into one"
    return f"it is text that begins with '{text[:40]}': fetch the file itself"


class IgnoredObject:
    """Stands for an object of no use here; what it was made of is dropped."""

    def __new__(cls, *_):
        """Drop the arguments."""
        return object.__new__(cls)

    def __init__(self, *_):
        pass

    def __setstate__(self, _):
        pass


class DictStandIn:
    """Stands for a kind of dictionary; becomes a plain one, which torch's reader fills."""

    def __new__(cls, *_):
        """Drop the arguments; its entries come later."""
        return OrderedDict()


class ListStandIn:
    """Stands for a kind of list; becomes a plain one, which torch's reader fills."""

    def __new__(cls, *_):
        """Drop the arguments; its entries come later."""
        return []


_DICTIONARIES = (
    "collections.defaultdict",
    "addict.addict.Dict",
    "detectron2.config.config.CfgNode",
    "easydict.EasyDict",
    "fvcore.common.config.CfgNode",
    "lightning.fabric.utilities.data.AttributeDict",
    "lightning.pytorch.utilities.parsing.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "mmcv.utils.config.ConfigDict",
    "mmengine.config.config.ConfigDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "yacs.config.CfgNode",
)
_IGNORED = {
    "argparse": "Namespace",
    "builtins": "bool bytes dict float frozenset int list object range slice str tuple",
    "datetime": "date datetime time timedelta timezone",
    "decimal": "Decimal",
    "fractions": "Fraction",
    "mmengine.logging.history_buffer": "HistoryBuffer",
    "numpy": "dtype ndarray",
    "numpy._core.multiarray": "scalar _reconstruct",
    "numpy.core.multiarray": "scalar _reconstruct",
    "omegaconf.base": "ContainerMetadata Metadata",
    "omegaconf.dictconfig": "DictConfig",
    "omegaconf.listconfig": "ListConfig",
    "omegaconf.nodes": "AnyNode BooleanNode BytesNode EnumNode FloatNode IntegerNode "
    "InterpolationResultNode PathNode StringNode",
    "pathlib": "Path PosixPath PurePath PurePosixPath PureWindowsPath WindowsPath",
    "pathlib._local": "PosixPath PurePosixPath PureWindowsPath WindowsPath",
    "torch.torch_version": "TorchVersion",
    "types": "SimpleNamespace",
    "typing": "Any",
    "uuid": "UUID",
}
"""Names of classes by module."""

STAND_INS: dict[str, type] = {
    **{
        f"{module}.{name}": IgnoredObject
        for module in _IGNORED
        for name in _IGNORED[module].split()
    },
    **dict.fromkeys(_DICTIONARIES, DictStandIn),
    "collections.deque": ListStandIn,
}
"""The stand-in of a class, by its module and name."""


def read_torch_file(path: Path) -> Any:
    """Return what a file of torch holds, in memory: tensors, plain containers and stand-ins.

    Raises:
        Exception: of almost any kind, for a file that is damaged or holds other classes.
    """
    allowed = safe_globals([(stand_in, name) for name, stand_in in STAND_INS.items()])
    # not all releases look by themselves whether the indices of sparse tensors are within bounds
    checked = torch.sparse.check_sparse_tensor_invariants(True)
    with warnings.catch_warnings(), allowed, checked:
        warnings.simplefilter("ignore")  # of other protocols, old storages, sparse layouts
        return torch.load(path, map_location="cpu", weights_only=True)
