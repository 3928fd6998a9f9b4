"""The classes that may be built from the files of somebody else's run."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

from hydra.utils import get_object
from torch import nn

from gradbench.errors import GradbenchError, printable


def check(target: Any, base: type, trusted: Iterable[str] = ()) -> None:
    """Refuse a class path unless it names a class that may be built.

    That is a sub-class of `base` which gradbench or a trusted module defines, one of torchvision's
    classifiers (a class or a builder of `torchvision.models`), or a function that a trusted module
    defines. Nothing else is imported, and none of it is called: a path can lead through
    `gradbench` to any module that is imported there.

    Args:
        target: `package.module.Name`, as a file says it.
        base: `torch.nn.Module` or `Detector`.
        trusted: modules that the user names.

    Raises:
        GradbenchError: naming the ways out.
    """
    trusted = tuple(trusted)
    if not isinstance(target, str) or not _inside(target, ("gradbench", "torchvision", *trusted)):
        module = printable(str(target).rpartition(".")[0] or target)
        raise GradbenchError(
            f"the run wants {printable(target)}, which is neither gradbench's nor torchvision's: "
            f"if you trust its code, say so with --trust {module} (from Python trust=['{module}'])"
        )
    try:
        thing = get_object(target)
    except Exception as fault:
        reason = " ".join(str(fault).split())
        hint = ": PYTHONPATH=DIR names its folder" if "No module named" in reason else ""
        raise GradbenchError(
            f"the run wants {printable(target)}, which cannot be imported "
            f"({printable(reason)}){hint}"
        ) from fault
    home = getattr(thing, "__module__", None) or ""
    if isinstance(thing, type):
        allowed = issubclass(thing, base) and _inside(home, ("gradbench", *trusted))
    else:
        allowed = callable(thing) and _inside(home, trusted)
    if not allowed and not (base is nn.Module and any(thing is one for one in _classifiers())):
        raise GradbenchError(
            f"the run wants {printable(target)}, which is not a sub-class of {base.__name__} or a "
            "function that builds one, defined in gradbench, a module named with --trust or, of "
            "classifiers, torchvision.models: it is not built"
        )


def without_downloads(config: dict[str, Any]) -> dict[str, Any]:
    """Return class path and arguments of a network; torchvision's are told to fetch no weights.

    Left alone, some builders fetch them; what is said the old way (`pretrained`) is left out.
    """
    if not _inside(config["_target_"], ("torchvision",)):
        return config
    takes = inspect.signature(get_object(config["_target_"])).parameters
    arguments = {k: v for k, v in config["arguments"].items() if not k.startswith("pretrained")}
    weights = {k: None for k in (*takes, *arguments) if k.startswith("weights")}
    return {**config, "arguments": arguments | weights}


def _classifiers() -> list:
    """Return torchvision's networks from images to logits: not those that detect or segment."""
    from torchvision import models

    builders = [models.get_model_builder(name) for name in models.list_models(module=models)]
    classes = (c for c in vars(models).values() if isinstance(c, type))
    return builders + [c for c in classes if issubclass(c, nn.Module)]


def _inside(name: str, modules: Iterable[str]) -> bool:
    """Tell whether a dotted name lies in one of some modules, or is one."""
    return any(name == module or name.startswith(f"{module}.") for module in modules)
