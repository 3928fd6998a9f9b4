"""Finds the folder of a finished run, and opens one of its networks."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gradbench.errors import GradbenchError, printable
from gradbench.predict import model_json
from gradbench.predict.loading import Kept
from gradbench.report.manifest import check
from gradbench.report.run_json import NAME, read_told
from gradbench.support.text import expand_home


def open_run(run: str | Path, seed: int | None = None, trusted: Iterable[str] = ()) -> Kept:
    """Open a network of a finished run.

    Args:
        run: the run's folder, or its name under `outputs/`.
        seed: which network, of several; None for the first.
        trusted: see `Kept`.

    Raises:
        GradbenchError: if there is no such run, or it has no whole `model/`.
    """
    trusted = listed("trust", trusted)
    folder = _folder(run)
    kept = (path for path in folder.glob("model/s*/model.json") if os.path.isfile(path))
    found = {path.parent.name[1:]: path.parent for path in kept}
    if not found:
        raise GradbenchError(
            f"{printable(folder)} has no model/ with a network: name the folder of a finished run "
            "(out=DIR of `gradbench run`; of a sweep one of its jobs)"
        )
    seeds = sorted(found, key=lambda text: (len(text), text))
    chosen = seeds[0] if seed is None else str(seed)
    if chosen not in found:
        raise GradbenchError(
            f"{printable(folder)} has no network of seed {printable(chosen)}: "
            f"{printable(', '.join(seeds))}"
        )
    return Kept(found[chosen], model_json.read(_as_written(folder, chosen)), trusted)


def _as_written(folder: Path, seed: str) -> Path:
    """Return the `model.json` of a network, which must be as the run wrote it where that is told.

    A `model/` that was copied without the run's `run.json`, or is of an older version, is taken
    as it is: `model.json` holds the checksums of its own folder.
    """
    name = f"model/s{seed}/model.json"
    if not os.path.lexists(folder / NAME):
        return folder / name
    files = read_told(folder).get("files")
    return folder / name if files is None else check(folder, files, name)


def listed(what: str, given: str | Iterable[str]) -> tuple[str, ...]:
    """Return names that are given as a list, or as one text.

    Raises:
        GradbenchError: if they are anything else.
    """
    if isinstance(given, str):
        return (given,)
    names = tuple(given) if isinstance(given, Iterable) else (given,)
    for name in names:
        if not isinstance(name, str):
            raise GradbenchError(f"{what}: give a list of names, not {kind_of(name)}")
    return names


def _folder(run: str | Path) -> Path:
    if not isinstance(run, str | os.PathLike):
        raise GradbenchError(
            f"{kind_of(run)} is no run: give the folder of one, or its name under outputs/"
        )
    for folder in (expand_home(run), Path("outputs") / run):
        if os.path.isdir(folder):
            return folder
    raise GradbenchError(f"there is no run at {printable(run)}: name the folder of a finished run")


def kind_of(value: Any) -> str:
    """Say what was given in place of something else."""
    return "None" if value is None else f"a {type(value).__name__}"
