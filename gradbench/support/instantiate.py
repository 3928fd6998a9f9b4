"""Builds the object that a member's configuration file describes."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from typing import Any

from hydra.utils import get_object

from gradbench.errors import Faulty, GradbenchError, unknown
from gradbench.support.calling import said, settings_kept
from gradbench.support.paths import where_to_look
from gradbench.support.sources import outside

NOT_ARGUMENTS = ("_target_", "description")


def instantiate(
    group: str,
    name: str,
    content: Mapping[str, Any],
    drop: Iterable[str] = NOT_ARGUMENTS,
    taken: Iterable[str] = (),
):
    """Build the object that a member's file describes.

    Args:
        group: of the configuration.
        name: of the member.
        content: of its file, with the user's changes.
        drop: keys that are no settings of the class.
        taken: settings that were valid where the user wrote them and are another's, for messages.

    Raises:
        GradbenchError: if its class is not found or refuses a setting, with the valid ones.
        Faulty: if the constructor of a class from outside raises.
    """
    target = content.get("_target_")
    if not target:
        raise GradbenchError(f"configs/{group}/{name}.yaml names no _target_")
    make = found(target, f"{group} {name}: {target}")
    arguments = {k: v for k, v in content.items() if k not in drop}
    signature = inspect.signature(make)
    try:
        signature.bind(**arguments)
    except TypeError:
        takes = [p.name for p in signature.parameters.values()]
        for wrong in arguments:
            if wrong not in takes:
                valid = (*takes, *taken)
                raise unknown(f"setting of {group} {name}", wrong, valid) from None
        missing = [
            p.name
            for p in signature.parameters.values()
            if p.default is p.empty and p.kind is not p.VAR_KEYWORD and p.name not in arguments
        ]
        raise GradbenchError(f"{group} {name} needs a value for {', '.join(missing)}") from None
    try:
        with settings_kept() if outside(make) else nullcontext():
            return make(**arguments)
    except GradbenchError:
        raise
    except Exception as fault:
        if outside(make):
            raise Faulty(f"{group} {name}: {target} {said(fault)}") from fault
        if not isinstance(fault, TypeError | ValueError):
            raise
        raise GradbenchError(f"{group} {name}: {fault}") from fault


def behind(target: str | None) -> list[Any]:
    """Return the class or function of a path alone in a list, an empty one where there is none."""
    try:
        return [found(target)] if target else []
    except GradbenchError:
        return []


def found(target: str, what: str = "") -> Any:
    """Return the class or function of a path; what its module sets when imported is put back.

    Args:
        target: `package.module.Name`.
        what: names it in messages, where the path alone does not.

    Raises:
        GradbenchError: if it cannot be imported, or is nothing that builds an object.
    """
    what = what or target
    try:
        known = target.rpartition(".")[0] in sys.modules
        with nullcontext() if known else settings_kept():
            make = get_object(target)
    except (Exception, SystemExit) as fault:
        reason = " ".join(str(fault).split())
        hint = where_to_look(reason)
        raise GradbenchError(f"{what} cannot be imported ({reason}){hint}") from fault
    if not callable(make):
        raise GradbenchError(f"{what} is a {type(make).__name__}: name a class or a function")
    return make
