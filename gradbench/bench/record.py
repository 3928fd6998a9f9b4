"""The rows that a benchmark leaves: numbers, condition, versions, hardware, command."""

from __future__ import annotations

import csv
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from gradbench.bench.agreement import Difference, agrees
from gradbench.bench.contenders import STEPS, Contender
from gradbench.bench.settings import Settings
from gradbench.bench.timing import Measured, Ratio, ratio, reference_of
from gradbench.errors import GradbenchError
from gradbench.report import provenance

LIBRARIES = ("backpack-for-pytorch", "pytorch-ood")
NUMBERS = (
    *("contender", "images_per_second", "ratio", "ratio_low", "ratio_high", "reference"),
    *(
        "memory_mib",
        "memory_ratio",
        "difference",
        "difference_quartile",
        "agrees",
        "rounds",
        "calls",
        "images",
        "note",
    ),
)
CONDITION = ("backbone", "width", "parameters", "batch", "image_size", "device", "threads",
             "precision")  # fmt: skip
MADE_BY = (
    *("processor", "cores", "load_average", "accelerator", "gradbench", "python", "torch"),
    *("torchvision", *LIBRARIES, "commit", "changed", "date", "command"),
)
COLUMNS = (*NUMBERS, *CONDITION, *MADE_BY)


@dataclass(frozen=True)
class Line:
    """What is known about one contender; None where it was not measured.

    Args:
        contender: its name.
        images_per_second: from its median time.
        ratio: its time beside the ordinary step's.
        memory_mib: peak above model and images.
        memory_ratio: the same beside the ordinary step's.
        difference: relative difference from the engine's norms.
        agrees: whether that is rounding alone; None where it is not judged.
        calls: runs within one measurement.
        images: images a run handles.
        note: what is worth knowing, or why there is no number.
    """

    contender: str
    images_per_second: float | None = None
    ratio: Ratio | None = None
    memory_mib: float | None = None
    memory_ratio: float | None = None
    difference: Difference | None = None
    agrees: bool | None = None
    calls: int | None = None
    images: int | None = None
    note: str = ""


def lines(
    names: Sequence[str],
    contenders: Mapping[str, Contender],
    timed: Measured,
    memory: Mapping[str, float],
    differences: Mapping[str, Difference],
    failed: Mapping[str, str],
    precision: str,
) -> tuple[list[Line], str]:
    """Put together what was found about every contender.

    Args:
        names: all contenders in the order of the table.
        contenders: those that could be made.
        timed: what `timing.measure` gave.
        memory: contender -> peak in MiB.
        differences: contender -> relative difference from the engine's norms.
        failed: contender -> why there is no time.
        precision: decides which differences are judged.

    Returns:
        The lines, and the name of the step that the ratios are taken to.

    Raises:
        GradbenchError: if no ordinary step could be timed.
    """
    if not any(step in timed.seconds for step in STEPS):
        why = failed.get(STEPS[0], "not measured")
        raise GradbenchError(f"the ordinary step, to which all is compared, failed: {why}")
    reference = reference_of(timed.seconds, STEPS)
    found = []
    for name in names:
        if name in failed:
            found.append(Line(name, memory_mib=memory.get(name), note=failed[name]))
            continue
        own = timed.seconds[name]
        share = memory.get(reference)
        note = "what the ratios are taken to" if name == reference else contenders[name].note
        difference = differences.get(name)
        found.append(
            Line(
                contender=name,
                images_per_second=1 / median(own),
                ratio=ratio(own, timed.seconds[reference]),
                memory_mib=memory.get(name),
                memory_ratio=memory[name] / share if share and name in memory else None,
                difference=difference,
                agrees=agrees(difference, precision),
                calls=timed.calls[name],
                images=contenders[name].images,
                note=note,
            )
        )
    return found, reference


def made_by(command: Sequence[str], load: float) -> dict[str, Any]:
    """Return what the numbers were made with, but for the device.

    Args:
        command: words after `gradbench`.
        load: processes that were busy on the machine when the measuring began.
    """
    versions, code = provenance.versions(), provenance.code()
    return {
        **{name: versions[name] for name in ("gradbench", "python", "torch", "torchvision")},
        **{name: version(name) for name in LIBRARIES},
        "commit": code["commit"],
        "changed": code["changed"],
        "load_average": round(load, 2),
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "command": shlex.join(("gradbench", *command)),
    }


def made_under(settings: Settings, model: nn.Module, about: Mapping[str, Any]) -> dict[str, Any]:
    """Return what all rows of a file share: `CONDITION` and `MADE_BY`, from what `made_by` gave."""
    hardware = provenance.hardware(torch.device(settings.device))
    shared = {name: getattr(settings, name) for name in CONDITION if name != "parameters"}
    shared |= {name: hardware.get(name) for name in ("processor", "cores", "accelerator")}
    return shared | {"parameters": sum(p.numel() for p in model.parameters()), **about}


def rows(
    found: Sequence[Line],
    reference: str,
    settings: Settings,
    model: nn.Module,
    rounds: int,
    about: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Return one row per contender with the columns `COLUMNS`."""
    shared = made_under(settings, model, about)
    rows = []
    for line in found:
        times = line.ratio
        numbers = {name: getattr(line, name) for name in NUMBERS if hasattr(line, name)}
        numbers |= {
            "ratio": times.median if times else None,
            "ratio_low": times.low if times else None,
            "ratio_high": times.high if times else None,
            "difference": line.difference.largest if line.difference else None,
            "difference_quartile": line.difference.quartile if line.difference else None,
            "reference": reference,
            "rounds": rounds,
        }
        rows.append({name: (numbers | shared).get(name) for name in COLUMNS})
    return rows


def write(rows: Sequence[Mapping[str, Any]], path: Path, columns: Sequence[str] = COLUMNS) -> None:
    """Write rows as CSV, beside their place and then renamed: never half a file.

    Raises:
        GradbenchError: if the file cannot be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(beside, "w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows({k: _text(v) for k, v in row.items()} for row in rows)
        os.replace(beside, path)
    except OSError as fault:
        beside.unlink(missing_ok=True)
        raise GradbenchError(f"cannot write {path}: {fault.strerror}") from fault


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def version(name: str) -> str:
    """Return the version of an installed library, or `absent`."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "absent"
