"""A digest of the source of code from outside the package, for the keys of products.

Parts of gradbench raise a VERSION when what they put out changes. Nobody does that for a class of
their own, so its module file, and whatever that imports from beside it, stands in the keys itself.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import sys
import uuid
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from gradbench.errors import printable
from gradbench.support.progress import say

OWN = ("gradbench", "torch", "torchvision")
"""Packages whose classes have a version, or weights and structure, in the keys already."""
INSTALLED = ("site-packages", "dist-packages")
UNREAD = "unread-"
"""Start of the digest of what has no source: it is another one in every process."""

_SEEN: WeakKeyDictionary[Any, str] = WeakKeyDictionary()  # a reloaded module has other classes


def is_external(*things: Any) -> bool:
    """Tell whether code from outside the package stands behind classes, functions or objects."""
    return any(True for thing in things for _ in _foreign(thing))


def code_key(*things: Any) -> dict[str, str]:
    """Return what keys add for classes, functions or objects: nothing where all of it is OWN.

    `code` covers the file of every class from outside, its bases from outside included, and of
    what these files import from the same folder or top-level package; of an installed package all
    of its Python. Where there is no source (a prompt, a compiled module) it is a random word, so
    that products are not used by another run, and that is said.
    """
    digests = sorted({_digest(one) for thing in things for one in _foreign(thing)})
    if not digests:
        return {}
    start = UNREAD if any(digest.startswith(UNREAD) for digest in digests) else ""
    return {"code": start + hashlib.sha256("\n".join(digests).encode()).hexdigest()[:40]}


def stable_name(kind: type | str) -> str:
    """Return the name of a class or function in keys; one of gradbench's may move to another file.

    >>> stable_name("gradbench.methods.msp.Msp"), stable_name("my.nets.Wide")
    ('Msp', 'my.nets.Wide')
    """
    path = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
    return path.rpartition(".")[2] if path.partition(".")[0] == "gradbench" else path


def stable_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a member's configuration as keys hold it: `_target_` is a stable name."""
    return {k: stable_name(v) if k == "_target_" and v else v for k, v in config.items()}


def _foreign(thing: Any) -> Iterator[Any]:
    """Yield the classes and functions from outside that a thing is made of."""
    thing = getattr(thing, "__func__", getattr(thing, "func", thing))  # of a method, of a partial
    named = isinstance(thing, type) or inspect.isroutine(thing)
    first = thing if named else type(thing)
    for one in first.__mro__ if isinstance(first, type) else (first,):
        top = (getattr(one, "__module__", None) or "builtins").partition(".")[0]
        ours = top in OWN or (top in sys.stdlib_module_names and top != "__main__")
        # bases that other libraries give have versions of their own
        if not ours and (one is first or _installed(_file(one)) is None):
            yield one


def _digest(one: Any) -> str:
    if one not in _SEEN:
        files = _files(one)
        _SEEN[one] = UNREAD + uuid.uuid4().hex if files is None else _sum(files)
        if files is None:
            name = printable(f"{one.__module__}.{one.__qualname__}")
            say(f"the source of {name} cannot be read: what it makes is not kept for other runs")
    return _SEEN[one]


def _sum(files: dict[str, bytes]) -> str:
    parts = (f"{name} {hashlib.sha256(files[name]).hexdigest()}" for name in sorted(files))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _file(one: Any) -> Path | None:
    """Return the file of the module that defines a class or function, None without one."""
    name = getattr(sys.modules.get(one.__module__), "__file__", None)
    return Path(name) if name else None


def _installed(path: Path | None) -> Path | None:
    """Return the package or module of an installed library that a file belongs to, else None."""
    around = () if path is None else (path, *path.parents)
    return next((p for p in around if p.parent.name in INSTALLED), None)


def _files(one: Any) -> dict[str, bytes] | None:
    """Return the content of the files behind a class or function by module; None if not there."""
    path = _file(one)
    if path is None or path.suffix != ".py" or not path.is_file():
        return None
    if one.__module__ == "__main__":
        try:  # or typed at the prompt that follows a script
            inspect.getsource(one)
        except (OSError, TypeError):
            return None
    if library := _installed(path):
        return {"": _whole(library).encode()}
    return _followed(one.__module__, path)


@cache
def _whole(library: Path) -> str:
    """Return a digest of all Python of an installed package."""
    files = library.rglob("*.py") if library.is_dir() else (library,)
    return _sum({str(path.relative_to(library.parent)): path.read_bytes() for path in files})


def _followed(module: str, path: Path) -> dict[str, bytes]:
    """Return a module's file and those that it imports, directly or not, from beside it."""
    files: dict[str, bytes] = {}
    waiting = [(module, path)]
    while waiting:
        name, file = waiting.pop()
        if name in files:
            continue
        files[name] = file.read_bytes()
        if file.suffix != ".py":
            continue
        package = file.name == "__init__.py"
        home = file.parents[name.count(".") + package]
        inside = name if package else name.rpartition(".")[0]
        for wanted in _imported(files[name], inside):
            waiting += _beside(wanted, home)
    return files


def _imported(source: bytes, package: str) -> Iterator[str]:
    """Yield the names that a file imports, anywhere in it; what is no module among them too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level]
            base = ".".join(filter(None, [*(above if node.level else ()), node.module]))
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                yield node.args[0].value


def _beside(name: str, home: Path) -> Iterator[tuple[str, Path]]:
    """Yield (module, file) of a name and of the packages around it, if it stands beside."""
    first, *rest = name.split(".")
    if not first or first in OWN or first in sys.stdlib_module_names:
        return
    spec = PathFinder.find_spec(first, [str(home)]) or _spec(first)
    for part in [*rest, None]:
        if spec is None:
            return
        origin = Path(spec.origin) if spec.has_location and spec.origin else None
        if _installed(origin) is not None:
            return
        if origin is not None and origin.is_file():
            yield spec.name, origin
        if part is None or spec.submodule_search_locations is None:
            return
        spec = PathFinder.find_spec(f"{spec.name}.{part}", list(spec.submodule_search_locations))


def _spec(name: str) -> ModuleSpec | None:
    """Return where a top-level module is; it may lie in another folder of the path."""
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):
        return None
