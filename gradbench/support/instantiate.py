"""Builds the object that a member's configuration file describes."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from hydra.utils import get_object

from gradbench.errors import GradbenchError, unknown
from gradbench.support.paths import where_to_look

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
    """
    target = content.get("_target_")
    if not target:
        raise GradbenchError(f"configs/{group}/{name}.yaml names no _target_")
    try:
        make = get_object(target)
    except Exception as fault:
        reason = " ".join(str(fault).split())
        hint = where_to_look(reason)
        raise GradbenchError(
            f"{group} {name}: {target} cannot be imported ({reason}){hint}"
        ) from fault
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
        return make(**arguments)
    except (TypeError, ValueError) as fault:
        raise GradbenchError(f"{group} {name}: {fault}") from fault
