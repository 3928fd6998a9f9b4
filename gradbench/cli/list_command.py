"""`gradbench list`: what there is, and whether it is ready here.

Imports no torch, but for what one detector tells of itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from gradbench.cli.words import config_dirs, data_root, tell_shadows
from gradbench.config import builtin_dir, group_files, load_member
from gradbench.errors import GradbenchError, printable, unknown

KINDS = {
    "experiments": "experiment",
    "backbones": "backbone",
    "datasets": "dataset",
    "challenges": "challenge",
    "detectors": "detector",
    "outputs": "output",
    "protocols": "protocol",
}

NAMED = 3
"""So many missing members are named, more are counted."""

HELP = f"""\
gradbench list [{"|".join(KINDS)}] [data.root=DIR] [--config-dir DIR]
gradbench list detector=NAME[,NAME…] [--config-dir DIR]

One line each: name, whether it is ready here, what it is. Of detectors by name, or of those of a
suite: the paper to cite, its code, what the detector sees and reads, how many passes it takes.
"""

DETECTOR = "detector="


def main(words: list[str]) -> None:
    """Run the command."""
    if any(w in ("-h", "--help") for w in words):
        print(HELP)
        return
    dirs = config_dirs(words)
    tell_shadows(dirs)
    root = data_root(words)
    skip = {str(d) for d in dirs}
    kinds = [w for w in words if not w.startswith(("-", "data.root=", DETECTOR)) and w not in skip]
    named = [w.removeprefix(DETECTOR) for w in words if w.startswith(DETECTOR)]
    for kind in kinds:
        if kind not in KINDS:
            raise unknown("list", kind, KINDS)
    if named:
        from gradbench.cli.list_detector import describe

        print("\n\n".join(describe([n for word in named for n in word.split(",")], dirs)))
    for kind in kinds or ([] if named else KINDS):
        rows = list(_rows(KINDS[kind], dirs, root))
        print(f"{kind} ({len(rows)})")
        widths = [max((len(row[i]) for row in rows), default=0) for i in (0, 1)]
        for row in rows:
            name, ready, what = map(printable, row)
            print(f"  {name:<{widths[0]}}  {ready:<{widths[1]}}  {what}")


def _rows(group: str, dirs: list[Path], root: Path) -> Iterable[tuple[str, str, str]]:
    for name in group_files(group, dirs):
        try:
            content = load_member(group, name, dirs, resolve=False)
            what = content.get("description") or ""
            if group == "challenge" and not what and "dataset" in content:
                dataset = load_member("dataset", content["dataset"], dirs, resolve=False)
                what = dataset.get("description", "")
            yield name, _ready(group, name, content, dirs, root), what
        except GradbenchError as fault:  # one file of many
            yield name, "not valid", str(fault)


def _ready(group: str, name: str, content: dict, dirs: list[Path], root: Path) -> str:
    """Return `ready`, or what is missing."""
    if group == "dataset":
        return _roles(name, content, dirs, root)
    if group == "challenge" and "members" in content:
        return _all(content["members"], dirs, root)
    if group == "challenge" and "dataset" in content:
        changes = {k: v for k, v in content.items() if k == "path"}
        return _dataset(content["dataset"], "challenge", dirs, root, changes)
    if group == "experiment":
        inside = next(
            (
                d["override /dataset"]
                for d in content.get("defaults") or []
                if isinstance(d, dict) and "override /dataset" in d
            ),
            "cifar10",
        )
        for role in ("train", "test"):
            state = _dataset(inside, role, dirs, root)
            if state != "ready":
                return f"{inside}: {role} images {state}"
        return _all(content.get("challenges", _usual_challenges()), dirs, root)
    if group == "backbone" and not content.get("_target_"):
        return "set backbone._target_"
    return "ready"


def _usual_challenges() -> list[Any]:
    """Return the challenges of an experiment that names none."""
    main = yaml.safe_load((builtin_dir() / "config.yaml").read_text(encoding="utf-8"))
    return main["challenges"]


def _all(challenges: Any, dirs: list[Path], root: Path) -> str:
    entries = [challenges] if isinstance(challenges, str | dict) else challenges or []
    missing = []
    for entry in entries:
        changes = entry if isinstance(entry, dict) else {"use": entry}
        if "use" not in changes:
            raise GradbenchError(f"challenges: {entry} names no member; write {{use: NAME, …}}")
        name = changes["use"]
        content = load_member("challenge", name, dirs, resolve=False) | changes
        if _ready("challenge", name, content, dirs, root) != "ready":
            missing.append(changes.get("name", name))
    if len(missing) > NAMED:
        if len(missing) == len(entries):
            return f"not here, none of {len(entries)}"
        return f"ready but for {len(missing)} of {len(entries)}"
    return "ready" if not missing else f"ready but for {', '.join(missing)}"


def _roles(name: str, content: dict, dirs: list[Path], root: Path) -> str:
    """Return what a data set can be used for here; a part of it, or why there is nothing."""
    roles = content.get("roles", {})
    states = {role: _dataset(name, role, dirs, root) for role in roles}
    missing = [role for role in roles if states[role] != "ready"]
    if not missing:
        return "ready"
    if states.get("challenge") == "ready":
        return f"ready as challenge, no {' or '.join(missing)} images"
    return states["train" if "train" in roles else "challenge"]


def _dataset(
    name: str, role: str, dirs: list[Path], root: Path, changes: dict | None = None
) -> str:
    from gradbench.data.catalogue import build_dataset
    from gradbench.data.settings import DataSettings

    try:
        return build_dataset(name, dirs, changes).ready(role, DataSettings(root)) or "ready"
    except GradbenchError as fault:
        return f"needs settings ({fault})"
