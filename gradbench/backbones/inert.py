"""Files of torch read without executing anything, with the harmless objects people put beside.

torch's own reader of weights knows tensors and plain containers. Names of a few classes more are
let through, each replaced by a stand-in of ours that takes whatever the file says and does nothing
with it: the classes themselves are neither imported nor called, so the list names what is common
beside weights, and a wrong name on it could execute nothing. Any other name is refused.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch.serialization import safe_globals


class Ignored:
    """Stands for an object of no use here; what it was made of is dropped."""

    def __new__(cls, *_):
        """Drop the arguments."""
        return object.__new__(cls)

    def __init__(self, *_):
        pass

    def __setstate__(self, _):
        pass


class Items:
    """Stands for a kind of dictionary; becomes a plain one, which torch's reader fills."""

    def __new__(cls, *_):
        """Drop the arguments; its entries come later."""
        return OrderedDict()


class Entries:
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
_OTHERS = {
    "argparse": ("Namespace",),
    "builtins": (
        *("bool", "bytes", "dict", "float", "frozenset", "int", "list", "object", "range"),
        *("slice", "str", "tuple"),
    ),
    "datetime": ("date", "datetime", "time", "timedelta", "timezone"),
    "decimal": ("Decimal",),
    "fractions": ("Fraction",),
    "mmengine.logging.history_buffer": ("HistoryBuffer",),
    "numpy": ("dtype", "ndarray"),
    "numpy._core.multiarray": ("scalar", "_reconstruct"),
    "numpy.core.multiarray": ("scalar", "_reconstruct"),
    "omegaconf.base": ("ContainerMetadata", "Metadata"),
    "omegaconf.dictconfig": ("DictConfig",),
    "omegaconf.listconfig": ("ListConfig",),
    "omegaconf.nodes": (
        *("AnyNode", "BooleanNode", "BytesNode", "EnumNode", "FloatNode", "IntegerNode"),
        *("InterpolationResultNode", "PathNode", "StringNode"),
    ),
    "pathlib": ("Path", "PosixPath", "PurePath", "PurePosixPath", "PureWindowsPath", "WindowsPath"),
    "pathlib._local": ("PosixPath", "PurePosixPath", "PureWindowsPath", "WindowsPath"),
    "torch.torch_version": ("TorchVersion",),
    "types": ("SimpleNamespace",),
    "typing": ("Any",),
    "uuid": ("UUID",),
}

STAND_INS: dict[str, type] = {
    **{f"{module}.{name}": Ignored for module, names in _OTHERS.items() for name in names},
    **dict.fromkeys(_DICTIONARIES, Items),
    "collections.deque": Entries,
}
"""What stands for a class, by its module and name."""


def load(path: Path) -> Any:
    """Return what a file of torch holds, in memory: tensors, plain containers and stand-ins.

    Raises:
        Exception: of almost any kind, for a file that is damaged or holds other classes.
    """
    allowed = safe_globals([(by, name) for name, by in STAND_INS.items()])
    # not all releases look by themselves whether the indices of sparse tensors are within bounds
    checked = torch.sparse.check_sparse_tensor_invariants(True)
    with warnings.catch_warnings(), allowed, checked:
        warnings.simplefilter("ignore")  # of other protocols, old storages, sparse layouts
        return torch.load(path, map_location="cpu", weights_only=True)
