"""The source of classes from outside, as keys of products hold it."""

import importlib
import sys
from fractions import Fraction
from functools import partial

import pytest
import torch

from gradbench.methods.msp import MSP
from gradbench.support.code_keys import code_key, is_external

FILES = {
    "sources_mine.py": "import sources_helper\nfrom sources_base import Base\n"
    "class Mine(Base):\n    def f(self):\n        import sources_late\n"
    "def make():\n    return 1\n",
    "sources_helper.py": "import importlib\nimportlib.import_module('sources_named')\n",
    "sources_base.py": "class Base: pass\n",
    "sources_late.py": "x = 1\n",
    "sources_named.py": "x = 1\n",
    "sources_apart.py": "x = 1\n",
    "sources_package/__init__.py": "",
    "sources_package/inner.py": "from . import beside\nfrom .deeper.one import x\nclass In: pass\n",
    "sources_package/beside.py": "x = 1\n",
    "sources_package/deeper/__init__.py": "",
    "sources_package/deeper/one.py": "x = 1\n",
    "sources_package/apart.py": "x = 1\n",
}


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Return a function from a name to the class or function, imported anew each time."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)

    def of(path):
        for name in [n for n in sys.modules if n.startswith("sources_")]:
            monkeypatch.delitem(sys.modules, name)
        importlib.invalidate_caches()
        module, name = path.rsplit(".", 1)
        return getattr(importlib.import_module(module), name)

    return of


def test_own_classes_add_nothing():
    for thing in (MSP, MSP(), torch.nn.Linear, torch.nn.ReLU(), torch.relu, Fraction, len, 1):
        assert not is_external(thing)
        assert code_key(thing) == {}


@pytest.mark.parametrize(
    ("path", "file", "changes"),
    [
        ("sources_mine.Mine", "sources_mine.py", True),
        ("sources_mine.Mine", "sources_helper.py", True),
        ("sources_mine.Mine", "sources_named.py", True),
        ("sources_mine.Mine", "sources_base.py", True),
        ("sources_mine.Mine", "sources_late.py", True),
        ("sources_mine.Mine", "sources_apart.py", False),
        ("sources_mine.make", "sources_base.py", True),
        ("sources_mine.make", "sources_apart.py", False),
        ("sources_package.inner.In", "sources_package/inner.py", True),
        ("sources_package.inner.In", "sources_package/beside.py", True),
        ("sources_package.inner.In", "sources_package/deeper/one.py", True),
        ("sources_package.inner.In", "sources_package/__init__.py", True),
        ("sources_package.inner.In", "sources_package/apart.py", False),
    ],
)
def test_an_edit_of_a_file_behind_a_class(load, tmp_path, path, file, changes):
    before = code_key(load(path))
    assert before == code_key(load(path))
    assert [*before] == ["code"]
    with open(tmp_path / file, "a") as stream:
        stream.write("y = 2\n")
    assert (code_key(load(path)) != before) == changes


def test_objects_and_partial_functions_count_as_what_they_are_made_of(load):
    mine, make = load("sources_mine.Mine"), load("sources_mine.make")
    assert code_key(mine()) == code_key(mine)
    assert code_key(partial(make)) == code_key(make)
    assert code_key(MSP, mine) == code_key(mine)
    own = type("Derived", (mine,), {"__module__": MSP.__module__})
    assert code_key(own) == {
        **code_key(mine),
        "code": code_key(own)["code"],
    }  # a base alone counts, too
    assert is_external(own)


def test_the_place_of_files_does_not_count(load, tmp_path, monkeypatch):
    here = code_key(load("sources_mine.Mine"))
    (tmp_path / "moved").mkdir()
    for name in FILES:
        if "/" not in name:
            (tmp_path / name).rename(tmp_path / "moved" / name)
    monkeypatch.syspath_prepend(tmp_path / "moved")
    assert code_key(load("sources_mine.Mine")) == here


def test_a_class_without_source_is_never_found_again(capsys):
    space = {"__name__": "__main__"}  # as at a prompt
    exec("class Typed: pass", space)
    first = code_key(space["Typed"])
    assert code_key(space["Typed"]) == first
    assert "the source of __main__.Typed cannot be read" in capsys.readouterr().err
    exec("class Typed: pass", space)
    assert code_key(space["Typed"]) != first


def test_an_installed_package_counts_as_a_whole(tmp_path, monkeypatch):
    home = tmp_path / "site-packages"
    for folder in (home / "sources_library", home / "sources_other"):
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text("")
    (home / "sources_library/part.py").write_text("import sources_other\nclass Part: pass\n")
    monkeypatch.syspath_prepend(home)
    part = importlib.import_module("sources_library.part")
    before = code_key(part.Part)
    assert before
    mine = type("Mine", (part.Part,), {"__module__": MSP.__module__})
    assert code_key(mine) == {}  # what it derives from has versions of its own
