"""What the report says of a run beside its numbers: conventions, provenance, how to repeat it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from gradbench.protocols.base import Grouped
from gradbench.report.grid import Grid
from gradbench.report.numbers import DASH
from gradbench.report.page.source import Source
from gradbench.report.view import HOLE, Line

SIDES = (
    "Abnormal images are the positive class, higher scores mean more abnormal; AUPR and FPR95 name "
    "their side in the column."
)
THRESHOLDS = (
    "None for AUROC and AUPR. FPR95: at least 95 % of the side named are recognised. Detection "
    "accuracy: the best threshold on the measured images (best), the best on other images "
    "(choose), or 0.5 where the detector itself says so."
)
SHORT = 12
"""Letters of a fingerprint that are shown."""


def conventions(source: Source) -> list[tuple[str, str]]:
    """Return what the numbers of a run mean: words and their explanations, above its tables."""
    about = source.about
    left = ", ".join(f"{name} ({seen})" for name, seen in (about.get("left_out") or {}).items())
    found = [
        ("Normal images", f"{about['in_dist']}, {_measured(source)} test images measured"),
        ("Network f", f"{source.network}; test accuracy {source.accuracy}"),
        ("Marked", "; ".join(source.marks)),
        ("Protocol", f"`{about['protocol']}`. {about.get('told') or Grouped().explanation}"),
        ("Left out", f"{left}, for they see challenges" if left else ""),
        ("Hold-out", about.get("hold_out") or ""),
        ("Units", "percent, where a column does not name another unit"),
        ("Positive side", SIDES),
        ("Balance", f"normal : abnormal images measured: {_balance(source)}"),
        ("Threshold", THRESHOLDS),
        ("Interval", _interval(source)),
    ]
    return [(word, text) for word, text in found if text]


def measured(source: Source) -> str:
    """Return how many cells of the main table hold a number, and how many a reason."""
    view = source.view
    names = view.methods(source.about["detectors"])
    cells = [view.cell(line, name) for line in view.lines() for name in names]
    count = sum(cell.value is not None for cell in cells)
    holes = sum(bool(cell.reason) for cell in cells)
    return f"{count}{f', {holes} not' * bool(holes)}"


def challenges(source: Source) -> str:
    """Return the names of the challenges, means left out."""
    return ", ".join(dict.fromkeys(x.challenge for x in source.view.lines() if not x.is_mean))


def holes(source: Source) -> list[str]:
    """Return the reasons why challenges or detectors were not measured, each once."""
    frame = source.run.frame
    notes = frame[frame["note"].str.startswith(HOLE)]
    found = {}
    for row in notes.itertuples(index=False):
        what = " ".join(filter(None, (Line.of(row).title, row.method and f"by {row.method}")))
        found.setdefault(row.note.removeprefix(HOLE), {})[what] = None
    return [f"{', '.join(names)}: {reason}" for reason, names in found.items()]


def data_table(source: Source) -> Grid:
    """Return every set of images with its fingerprint."""
    rows = [
        (name, *(_text(one.get(k)) for k in ("images", "status", "note")),
         _text(one.get("fingerprint"))[:SHORT])
        for name, one in source.told["data"].items()
    ]  # fmt: skip
    header = ("images", "count", "status", "note", "SHA-256")
    return Grid(header, tuple(rows), labels=len(header)).without_empty_columns()


def networks_table(source: Source) -> Grid:
    """Return every network with its weights."""
    accuracy = source.about["accuracy"]
    rows = [
        (
            source.about["backbone"],
            _text(source.about["width"]),
            f"seed {seed}",
            f"{100 * accuracy[seed]:.2f} %" if seed in accuracy else "",
            _text(one.get("origin")),
            _text(one.get("weights"))[:SHORT],
        )
        for seed, one in source.told["networks"].items()
    ]
    header = ("network", "width", "seed", "test accuracy", "origin", "SHA-256 of the weights")
    return Grid(header, tuple(rows), labels=len(header)).without_empty_columns()


def facts(source: Source) -> list[tuple[str, str]]:
    """Return when, with which code and versions and on which machine a run was made."""
    told = source.told
    code, time = told["code"], told["time"]
    changed = {True: ", with changes that are in no commit", None: ", no checkout"}
    commit = f"{code.get('commit') or code.get('version')}{changed.get(code.get('changed'), '')}"
    seconds = time.get("seconds")
    made, found = time.get("products_made"), time.get("products_found")
    took = f"{seconds:g} s" if isinstance(seconds, int | float) else ""
    if made is not None:
        took += f" for the last call: {made} products made, {found} found in the store"
    hardware = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in told.get("hardware", {}).items())
    versions = ", ".join(f"{name} {v}" for name, v in told.get("versions", {}).items())
    every = (
        ("Folder", f"`{source.path}`"),
        ("Begun", str(time.get("begun", ""))),
        ("Took", took),
        ("Code", commit),
        ("Hardware", hardware),
        ("Versions", versions),
    )
    return [(word, text) for word, text in every if text]


def configuration(source: Source) -> str:
    """Return the whole configuration of a run as YAML."""
    return yaml.safe_dump(dict(source.run.config), sort_keys=False, allow_unicode=True, width=100)


def repeat(source: Source) -> str:
    """Return the commands that make a run again."""
    commit = source.told["code"].get("commit")
    lines = [f"git checkout {commit}"] if commit else []
    root = source.run.config.get("data", {}).get("root")
    where = f"  # images under {root}/" if root else ""
    return "\n".join([*lines, f"make install{where}", source.about["command"]])


def _measured(source: Source) -> str:
    counts = [source.view.count(line, "n_normal") for line in source.view.lines()]
    return " or ".join(dict.fromkeys(filter(None, counts))) or str(source.about["n_clean"])


def _balance(source: Source) -> str:
    view = source.view
    pairs: dict[str, list[str]] = {}
    for line in view.lines():
        normal, abnormal = view.count(line, "n_normal"), view.count(line, "n_abnormal")
        if normal and abnormal and not line.is_mean:
            pairs.setdefault(f"{normal} : {abnormal}", []).append(line.title)
    told = [
        f"{pair} ({', '.join(names) if len(names) <= 4 else f'{len(names)} cells'})"
        for pair, names in pairs.items()
    ]
    return "; ".join(told) or "none"


def _interval(source: Source) -> str:
    if len(source.seeds) > 1:
        return (
            "In parentheses the range of the networks: it speaks of other networks, on these images"
        )
    evaluation: Mapping[str, Any] = source.run.config.get("evaluation", {})
    share = evaluation.get("confidence")
    level = f"{100 * share:g} % " if share else ""
    return (
        f"The {level}interval behind a value (from{DASH}to, or ≥ for an exact lower bound) speaks "
        "of other images for this network and these fitted detectors, not of another network"
    )


def _text(value: Any) -> str:
    return "" if value is None else str(value)
