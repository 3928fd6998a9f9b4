"""`gradbench list`: what there is, and whether it is ready here.

Imports no torch, except to describe a detector.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from gradbench.cli.arguments import (
    Parser,
    add_config_dir,
    data_root,
    split_words,
    warn_of_replaced_members,
)
from gradbench.config import builtin_dir, expand, group_files, load_member
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
DESCRIPTION = """\
One line each: name, whether it is ready here, what it is. Of detectors by name, or of those of a
suite: the paper to cite, its code, what the detector sees and reads, how many passes it takes.
"""


def configure(parser: Parser) -> None:
    """Add the arguments of the command."""
    parser.description = DESCRIPTION
    parser.add_argument(
        "words", nargs="*", metavar="KIND | detector=NAME[,NAME] | data.root=DIR",
        help=f"kinds are {', '.join(KINDS)}; all without any",
    )  # fmt: skip
    add_config_dir(parser)


def main(args: Namespace) -> None:
    """Print the lists."""
    dirs = args.config_dir
    warn_of_replaced_members(dirs)
    detectors = [w.removeprefix("detector=") for w in args.words if w.startswith("detector=")]
    kinds, settings, _ = split_words(args.words, ("detector", "data.root"), "list")
    for kind in kinds:
        if kind not in KINDS:
            raise unknown("list", kind, KINDS)
    if detectors:
        print("\n\n".join(_describe(",".join(detectors).split(","), dirs)))
    root = data_root(settings.get("data.root"))
    for kind in kinds or ([] if detectors else KINDS):
        rows = list(_rows(KINDS[kind], dirs, root))
        print(f"{kind} ({len(rows)})")
        widths = [max((len(row[i]) for row in rows), default=0) for i in (0, 1)]
        for *row, further in rows:
            name, state, description = map(printable, row)
            print(f"  {name:<{widths[0]}}  {state:<{widths[1]}}  {description}")
            for line in further:
                print(f"    {printable(line)}")


def _rows(group: str, dirs: list[Path], root: Path) -> Iterator[tuple[str, str, str, list[str]]]:
    """Yield name, state and description of every member, and what else there is to say of it."""
    for name in group_files(group, dirs):
        try:
            content = load_member(group, name, dirs, resolve=False)
            description = content.get("description") or ""
            if group == "challenge" and not description and "dataset" in content:
                dataset = load_member("dataset", content["dataset"], dirs, resolve=False)
                description = dataset.get("description", "")
            further = _published(content, root) if group == "backbone" else []
            yield name, _state(group, name, content, dirs, root), description, further
        except GradbenchError as fault:  # one file of many
            yield name, "not valid", str(fault), []


def _state(group: str, name: str, content: dict, dirs: list[Path], root: Path) -> str:
    """Return `ready`, or what is missing."""
    if group == "dataset":
        states = {role: _images(name, role, dirs, root) for role in content.get("roles", {})}
        missing = [role for role, state in states.items() if state != "ready"]
        if missing and states.get("challenge") == "ready":
            return f"ready as challenge, no {' or '.join(missing)} images"
        return states["train" if "train" in states else "challenge"] if missing else "ready"
    if group == "challenge" and "members" in content:
        return _challenges(content["members"], dirs, root)
    if group == "challenge" and "dataset" in content:
        changes = {k: v for k, v in content.items() if k == "path"}
        return _images(content["dataset"], "challenge", dirs, root, changes)
    if group == "experiment":
        main = yaml.safe_load((builtin_dir() / "config.yaml").read_text(encoding="utf-8"))
        defaults: dict[str, Any] = {}
        for entry in content.get("defaults") or []:
            defaults |= entry if isinstance(entry, dict) else {}
        dataset = defaults.get("override /dataset", "cifar10")
        for role in ("train", "test"):
            state = _images(dataset, role, dirs, root)
            if state != "ready":
                return f"{dataset}: {role} images {state}"
        return _challenges(content.get("challenges", main["challenges"]), dirs, root)
    if group == "backbone":
        for setting in ("_target_", "model"):
            if setting in content and not content[setting]:
                return f"set backbone.{setting}"
    return "ready"


def _published(content: dict, root: Path) -> list[str]:
    """Return a line on each network that others published: accuracies, and where its file is."""
    from gradbench.backbones.published import FOLDER, describe_accuracy, published_file

    lines = []
    for dataset, entry in (content.get("published") or {}).items():
        if path := published_file(entry, root):
            where = f"found: {path}"
        else:
            files = " or ".join(entry["files"])
            where = f"not found: {root / FOLDER} holds no {files} (of {entry['origin']})"
        lines.append(f"published for {dataset}, {describe_accuracy(entry)}, {where}")
    return lines


def _challenges(entries: Any, dirs: list[Path], root: Path) -> str:
    """Return which challenges of a list are missing."""
    entries = [entries] if isinstance(entries, str | dict) else entries or []
    missing = []
    for entry in entries:
        changes = entry if isinstance(entry, dict) else {"use": entry}
        if "use" not in changes:
            raise GradbenchError(f"challenges: {entry} names no member; write {{use: NAME, …}}")
        name = changes["use"]
        content = load_member("challenge", name, dirs, resolve=False) | changes
        if _state("challenge", name, content, dirs, root) != "ready":
            missing.append(changes.get("name", name))
    if len(missing) == len(entries) > NAMED:
        return f"not here, none of {len(entries)}"
    if len(missing) > NAMED:
        return f"ready but for {len(missing)} of {len(entries)}"
    return "ready" if not missing else f"ready but for {', '.join(missing)}"


def _images(name: str, role: str, dirs: list[Path], root: Path, changes: dict | None = None) -> str:
    """Return whether a data set has images of a role here."""
    from gradbench.data.catalogue import build_dataset
    from gradbench.data.dataset import DataSettings

    try:
        return build_dataset(name, dirs, changes).ready(role, DataSettings(root)) or "ready"
    except GradbenchError as fault:
        return f"needs settings ({fault})"


def _describe(names: Sequence[str], dirs: Sequence[Path]) -> Iterator[str]:
    """Yield a paragraph for every detector, suites unfolded."""
    from gradbench.methods.base import Method, PassCount
    from gradbench.methods.checked import check_declared
    from gradbench.outputs.catalogue import OutputCatalogue
    from gradbench.report.run_tables import SUPERVISION
    from gradbench.support.instantiate import instantiate

    for name, content in expand("detector", list(dict.fromkeys(names)), dirs):
        detector = instantiate("detector", name, content, base=Method)
        check_declared(name, detector, OutputCatalogue(dirs))
        facts = {"what": content.get("description")}
        if info := getattr(detector, "info", None):
            if info.own:
                facts["method"] = "gradbench's own, not in the paper that it is built on"
            facts["built on" if info.own else "paper"] = info.title
            facts |= {"venue": info.venue, "url": info.url, "code": info.code or "none public"}
        else:
            facts["paper"] = "not named"
        steps = detector.perturbed_passes.values()
        passes = str(detector.pass_count)
        if detector.reads_members:
            passes += ", of every network of the run"
        planned = detector.planned_passes(("layer", "other"))
        if chosen := [p for p in planned if p.part == "measure" and p.chosen]:
            each = " for each feature layer" if len(chosen) > 1 else ""
            passes += f"; where it chooses a step {PassCount(2, 1)}{each}"
        reads = [*detector.reads, *(f"{p.source} after a step of the pixels" for p in steps)]
        facts |= {
            "supervision": f"{detector.supervision}: sees {SUPERVISION[detector.supervision]}",
            "clean images": detector.clean_seen,
            "reads": ", ".join(reads),
            "passes": passes,
        }
        lines = [printable(f"  {key:<12}  {value}") for key, value in facts.items() if value]
        yield "\n".join([name, *lines])
