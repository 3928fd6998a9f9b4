"""Which classes may be built from the files of somebody else's run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hydra.utils import get_object
from torch import nn

from gradbench.errors import GradbenchError

OWN = ("gradbench", "torchvision")
"""Packages whose networks and detectors are built without being asked."""


def check(target: Any, base: type, trusted: Iterable[str] = ()) -> None:
    """Refuse a class path unless it names a class that may be built.

    That is a sub-class of `base` which gradbench, torchvision or a trusted module defines, one of
    torchvision's registered model builders, or a function that a trusted module defines. Nothing
    else is imported, and none of it is called: a path can lead through `gradbench` to any module
    that is imported there.

    Args:
        target: `package.module.Name`, as a file says it.
        base: `torch.nn.Module` or `Detector`.
        trusted: modules that the user names.

    Raises:
        GradbenchError: naming the ways out.
    """
    trusted = tuple(trusted)
    if not isinstance(target, str) or not _inside(target, (*OWN, *trusted)):
        module = str(target).rpartition(".")[0] or str(target)
        raise GradbenchError(
            f"the run wants {target}, which is neither gradbench's nor torchvision's: if you trust "
            f"its code, say so with --trust {module} (from Python trust=['{module}'])"
        )
    try:
        found = get_object(target)
    except Exception as fault:
        reason = " ".join(str(fault).split())
        raise GradbenchError(f"the run wants {target}, which cannot be imported ({reason})") from (
            fault
        )
    home = getattr(found, "__module__", None) or ""
    if isinstance(found, type):
        allowed = issubclass(found, base) and _inside(home, (*OWN, *trusted))
    else:
        allowed = callable(found) and (
            _inside(home, trusted) or (base is nn.Module and found in _builders())
        )
    if not allowed:
        kinds = f"a sub-class of {base.__name__} or a function that builds one"
        raise GradbenchError(
            f"the run wants {target}, which is not {kinds}, defined in gradbench, torchvision or a "
            "module named with --trust: it is not built"
        )


def without_downloads(config: dict[str, Any]) -> dict[str, Any]:
    """Return class path and arguments of a network; torchvision's are told to fetch no weights."""
    if not _inside(config["_target_"], ("torchvision",)):
        return config
    arguments = {k: None if k.startswith("weights") else v for k, v in config["arguments"].items()}
    return {**config, "arguments": arguments}


def _builders() -> list:
    from torchvision.models import get_model_builder, list_models

    return [get_model_builder(name) for name in list_models()]


def _inside(name: str, modules: Iterable[str]) -> bool:
    """Tell whether a dotted name lies in one of some modules, or is one."""
    return any(name == module or name.startswith(f"{module}.") for module in modules)
