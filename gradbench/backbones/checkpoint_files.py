"""Reads files of torch without executing any code in them.

torch's own reader of weights (`weights_only=True`) knows tensors and plain containers. The names
of a few more classes, common beside weights, are let through, each replaced by a stand-in that
takes whatever the file says and does nothing with it: the classes themselves are neither imported
nor called, so a wrong name on the list could execute nothing. Any other name is refused.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch.serialization import safe_globals


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
}
STAND_INS: dict[str, type] = dict.fromkeys(_DICTIONARIES, DictStandIn)
"""The stand-in of a class, by its module and name."""
for _module, _names in _IGNORED.items():
    STAND_INS |= {f"{_module}.{name}": IgnoredObject for name in _names.split()}


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
