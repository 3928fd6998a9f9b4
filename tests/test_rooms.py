"""The rooms of the package: CONTRIBUTING.md tells them all, and no import runs back up."""

from __future__ import annotations

import ast
import re
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "gradbench"


def told(start: str) -> list[str]:
    """Return the names in the first column of the table that follows some words, in order."""
    text = (ROOT / "CONTRIBUTING.md").read_text().partition(start)[2]
    rows = re.findall(r"^\| (`.*?) \|", text.partition("\n\n|")[2].partition("\n\n")[0], re.M)
    return [name for row in rows for name in re.findall(r"`([\w.]+?)(?:\.py|/)`", row)]


@cache
def imports() -> dict[str, set[str]]:
    """Return module -> modules of the package that it imports when it is loaded or later."""
    files = {
        ".".join(("gradbench", *path.relative_to(PACKAGE).with_suffix("").parts)): path
        for path in PACKAGE.rglob("*.py")
    }
    files = {name.removesuffix(".__init__"): path for name, path in files.items()}
    found = {}
    for name, path in files.items():
        wanted: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                wanted |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                below = {f"{node.module}.{alias.name}" for alias in node.names}
                wanted |= {b if b in files else node.module for b in below}
        found[name] = {w for w in wanted if w in files and w != name}
    return found


def room(module: str) -> str:
    return module.split(".")[1]


def test_every_room_is_told():
    there = {p.name.removesuffix(".py") for p in PACKAGE.iterdir()} - {"__init__", "__pycache__"}
    assert set(told("Rooms, in the order")) == there
    inside = {p.stem for p in (PACKAGE / "run").glob("[a-z]*.py")}
    assert set(told("Inside `run/`")) == inside


@pytest.mark.parametrize(
    ("start", "part"), [("Rooms, in the order", 1), ("Inside `run/`", 2)], ids=["rooms", "run"]
)
def test_imports_come_from_above_alone(start, part):
    place = {name: i for i, name in enumerate(told(start))}
    prefix = "gradbench.run." if part == 2 else "gradbench."
    wrong = [
        f"{module} imports {other}"
        for module, others in imports().items()
        for other in others
        if module.startswith(prefix) and other.startswith(prefix)
        and place[module.split(".")[part]] < place[other.split(".")[part]]
    ]  # fmt: skip
    assert not wrong


def test_no_files_import_each_other_in_a_circle():
    outside = {m: {o for o in others if o != "gradbench"} for m, others in imports().items()}
    list(TopologicalSorter(outside).static_order())  # raises CycleError, naming the circle


def test_the_gradients_can_be_lifted_out():
    own = {o for m, others in imports().items() if m.startswith("gradbench.gradients")
           for o in others if not o.startswith("gradbench.gradients")}  # fmt: skip
    assert own <= {"gradbench.errors"}
