"""Builds the object that a member's configuration file describes."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, get_type_hints

from gradbench.errors import Faulty, GradbenchError, printable, unknown
from gradbench.support.code_keys import is_external
from gradbench.support.text import format_value
from gradbench.support.typed import check_type, is_plain_type

NOT_ARGUMENTS = ("_target_", "description")


def instantiate(
    group: str,
    name: str,
    content: Mapping[str, Any],
    drop: Iterable[str] = NOT_ARGUMENTS,
    elsewhere: Iterable[str] = (),
    base: type | None = None,
):
    """Build the object that a member's file describes.

    Args:
        group: of the configuration.
        name: of the member.
        content: of its file, with the user's changes.
        drop: keys that are no settings of the class.
        elsewhere: settings of another class that are valid in the same place, for messages.
        base: the class that it must be an instance of.

    Raises:
        GradbenchError: if its class is not found or refuses a setting, with the valid ones.
        Faulty: if the constructor of a class from outside raises.
    """
    target = content.get("_target_")
    if not target:
        raise GradbenchError(f"configs/{group}/{name}.yaml names no _target_")
    make = import_target(f"{group} {name}", target, base)
    arguments = {k: v for k, v in content.items() if k not in drop}
    check_arguments(make, arguments, f"{group} {name}", elsewhere)
    try:
        with _process_kept(is_external(make)):
            made = make(**arguments)
    except GradbenchError:
        raise
    except Exception as fault:
        if is_external(make):
            from gradbench.support.external import describe_exception

            raise Faulty(f"{group} {name}: {target} {describe_exception(fault)}") from fault
        if not isinstance(fault, TypeError | ValueError):
            raise
        raise GradbenchError(f"{group} {name}: {fault}") from fault
    if base is not None and not isinstance(made, base):
        raise _other(f"{group} {name}", target, base)
    return made


def imported_targets(target: str | None) -> list[Any]:
    """Return the class or function of a path alone in a list, an empty one where there is none."""
    try:
        return [import_target(target, target)] if target else []
    except GradbenchError:
        return []


def import_target(member: str, target: Any, base: type | None = None) -> Callable:
    """Return the class, derived from `base`, or the function that builds one.

    What its module sets in torch, numpy or Python when it is imported is put back.

    Args:
        member: names it in messages.
        target: its path, `package.module.Name`.
        base: a class.

    Raises:
        GradbenchError: if it cannot be imported, or is something else.
    """
    if not isinstance(target, str):
        raise GradbenchError(
            f"{member}: _target_={format_value(target)}: write package.module.Name"
        )
    module, _, name = target.rpartition(".")
    try:
        with _process_kept(module not in sys.modules and not module.startswith("gradbench.")):
            make = getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as fault:
        reason = " ".join(str(fault).split())
        raise GradbenchError(
            f"{member}: {format_value(target)} cannot be imported "
            f"({printable(reason)}){import_hint(reason)}"
        ) from fault
    if not callable(make) or (base and isinstance(make, type) and not issubclass(make, base)):
        raise _other(member, target, base)
    return make


def _process_kept(external: bool) -> AbstractContextManager:
    """Return a block that puts settings of the process back after code from outside."""
    if not external:
        return nullcontext()
    from gradbench.support.external import preserve_process_state  # and torch, which takes seconds

    return preserve_process_state()


def check_arguments(
    make: Callable, arguments: Mapping[str, Any], member: str, elsewhere: Iterable[str] = ()
) -> None:
    """Refuse arguments that a class does not take, or that are not of the types it declares.

    Raises:
        GradbenchError: naming the argument, and the valid ones or what is due.
    """
    named, open_ended = parameters_of(make)
    for argument in arguments:
        if not open_ended and argument not in named:
            raise unknown(f"setting of {member}", str(argument), (*named, *elsewhere))
    missing = [n for n, p in named.items() if p.default is p.empty and n not in arguments]
    if missing:
        raise GradbenchError(f"{member} needs a value for {', '.join(missing)}")
    declared = _declared(make)
    for key, parameter in named.items():
        if key in arguments and arguments[key] is not parameter.default:
            due = declared.get(key, Any)
            check_type(arguments[key], due if is_plain_type(due) else Any, f"{member} {key}")


def parameters_of(make: Callable) -> tuple[dict[str, inspect.Parameter], bool]:
    """Return what a class takes by name, and whether it takes any other name too."""
    try:
        takes = inspect.signature(make).parameters
    except (TypeError, ValueError):  # written in C, which tells nothing
        return {}, True
    loose = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    named = {name: p for name, p in takes.items() if p.kind not in loose}
    return named, any(p.kind is p.VAR_KEYWORD for p in takes.values())


def _declared(make: Callable) -> Mapping[str, Any]:
    """Return the types of arguments by name, as far as they can be had."""
    plain = not isinstance(make, type) or dataclasses.is_dataclass(make)
    try:
        return get_type_hints(make if plain else make.__init__, include_extras=True)
    except Exception:  # of names that were imported for a type checker alone
        return {}


def _other(member: str, target: str, base: type | None) -> GradbenchError:
    kind = f"builds no {base.__name__.lower()}" if base else "is no class"
    due = f"a class derived from {base.__module__}.{base.__name__}" if base else "a class"
    return GradbenchError(f"{member}: _target_={format_value(target)} {kind}: name {due}")


def import_hint(reason: str) -> str:
    """Return what to do about a module that is not found, "" for another reason."""
    if "No module named" not in reason:
        return ""
    return (
        ": PYTHONPATH=DIR names the folder in which it lies, as --config-dir DIR does for run, "
        "sweep, plan and list"
    )
