r"""The files that a run wrote, as its `run.json` lists them: size, SHA-256, rows of a CSV file.

Folders of runs that were made before files were listed get a list of what they hold now by

    python -c "import sys; from gradbench.report.manifest import seal; \
        [seal(folder) for folder in sys.argv[1:]]" FOLDER ...
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gradbench.errors import GradbenchError, printable
from gradbench.report.run_json import ANEW, NAME, read_told
from gradbench.store import file_digest

Files = Mapping[str, Mapping[str, Any]]
"""By path from the folder, with `/`: `bytes`, `sha256`, and `rows` of results.csv."""
COUNTED = "results.csv"
FIXED = (COUNTED, f"{COUNTED}.gz", "costs.csv", "costs.md", "table.md")
PATTERNS = (
    *(f"figures/{name}.png" for name in ("roc*", "scores_*", "gradient_profile*", "levels")),
    *(f"model/s*/{name}" for name in ("model.json", "network.safetensors")),
    "model/s*/detectors/*.safetensors",
)
"""What a run writes besides `FIXED` and its `run.json`."""


def written(folder: Path) -> list[str]:
    """Return what stands in a folder where a run writes, whoever wrote it."""
    found = (path for pattern in PATTERNS for path in folder.glob(pattern))
    fixed = [name for name in FIXED if os.path.lexists(folder / name)]
    return sorted([*fixed, *(path.relative_to(folder).as_posix() for path in found)])


def listed(folder: Path, names: Iterable[str] | None = None) -> dict[str, dict[str, Any]]:
    """Return the list of a folder's files, by default of all that a run writes."""
    files = {}
    for name in written(folder) if names is None else names:
        path = folder / name
        files[name] = {"bytes": path.stat().st_size, "sha256": file_digest(path)}
        if name == COUNTED:
            files[name]["rows"] = rows(path)
    return files


def rows(path: Path) -> int:
    """Return the whole rows of a CSV file below its header; a last one without end is none."""
    with open(path, newline="", encoding="utf-8", errors="replace") as stream:
        count = sum(1 for _ in csv.reader(stream))
    with open(path, "rb") as stream:
        if stream.seek(0, os.SEEK_END):
            stream.seek(-1, os.SEEK_END)
        broken = stream.read(1) not in (b"\n", b"")
    return max(count - 1 - broken, 0)


def check(folder: Path, files: Files, name: str) -> Path:
    """Return the path of a file that is as the run wrote it.

    Args:
        folder: of the run.
        files: what its run.json lists.
        name: of the file, a path from the folder.

    Raises:
        GradbenchError: if it is missing, broken off or edited: which rows, and what to do.
    """
    path, due = folder / name, files.get(name)
    if not os.path.isfile(path):
        raise GradbenchError(f"{printable(path)} is missing: {ANEW}")
    if due is None:
        raise GradbenchError(
            f"{printable(path)} is no file of this run: its run.json does not list it"
        )
    try:
        size = path.stat().st_size
        if size == due["bytes"] and file_digest(path) == due["sha256"]:
            return path
        counted = due.get("rows") is not None and size < due["bytes"]
        lost = due["rows"] - rows(path) if counted else 0
    except csv.Error:
        lost = 0
    except OSError as fault:
        raise GradbenchError(f"cannot read {printable(path)}: {fault.strerror}") from fault
    if lost > 0:
        what = f"is broken off or shortened: {lost} of its {due['rows']} rows are missing"
    elif size < due["bytes"]:
        what = f"was changed after the run: {due['bytes'] - size} of {due['bytes']} bytes are gone"
    else:
        what = "was edited after the run wrote it (its SHA-256 is another)"
    raise GradbenchError(f"{printable(path)} {what}: {ANEW}")


def seal(folder: str | Path) -> bool:
    """List the files of a finished run in its run.json as they are now; what was listed goes.

    Returns:
        Whether the folder is that of a run; others are left alone.

    Raises:
        GradbenchError: if its run.json is damaged.
    """
    folder = Path(folder)
    if not os.path.isfile(folder / NAME):
        return False
    read_told(folder)
    told = json.loads((folder / NAME).read_text(encoding="utf-8"))  # in its own order
    write_told(folder, told | {"files": listed(folder)})
    return True


def write_told(folder: Path, told: Mapping[str, Any]) -> None:
    """Write a run.json beside its place and move it there."""
    beside = folder / f".{NAME}.{os.getpid()}"
    beside.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    os.replace(beside, folder / NAME)
