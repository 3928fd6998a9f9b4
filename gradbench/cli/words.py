"""Reads and answers a command line without Hydra, which takes half a second to import."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import NoReturn

from gradbench.errors import GradbenchError, printable

_CFG = ("job", "hydra", "all")
_INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
OPTIONS_WITH_VALUE = {
    **{"--config-dir": (), "-cd": (), "--package": (), "-p": ()},
    **{"--cfg": _CFG, "-c": _CFG, "--info": _INFO, "-i": _INFO},
}
"""Hydra's options whose value is the next word, and the values that they may have."""
OPTIONS = (*OPTIONS_WITH_VALUE, "--help", "-h", "--resolve")
"""Options of Hydra that mean something to gradbench."""

_SHORT = re.compile(
    r"failed to map segment|[Cc]annot allocate memory|can't (allocate memory|start new thread)|"
    r"not enough memory|bad_alloc|out of memory"
)
"""What other libraries say where memory is short."""

COMMANDS = {
    "run": "carry out an experiment: train, challenge, read gradients, detect, measure",
    "sweep": "run every combination of comma lists (Hydra multirun, any launcher)",
    "plan": "the steps of a run, which of them are in the store, estimated time",
    "list": "backbones, datasets, challenges, detectors, protocols, experiments",
    "data": "images: list, fetch, verify, show (pictures of sets and challenges)",
    "show": "the tables of a finished run",
    "tables": "the papers' tables: published numbers beside those of finished runs",
    "report": "finished runs as one HTML file: tables, figures, controls, how to repeat them",
    "score": "new pictures by the network and detectors of a finished run, as CSV",
    "store": "ls, verify or prune the kept products of all runs",
}


def fail(fault: GradbenchError) -> NoReturn:
    """Print a fault as one sentence and exit with 2."""
    # what a user wrote and names of files may hold breaks of lines and what steers a terminal
    print(f"gradbench: {printable(str(fault))}", file=sys.stderr)
    sys.exit(2)


def of_the_machine(fault: Exception) -> GradbenchError:
    """Return what an exception says of the machine: too little memory, a full disk.

    Raises:
        Exception: the same one, if it tells of a fault of the program.
    """
    text = " ".join(str(fault).split())
    if isinstance(fault, MemoryError) or _SHORT.search(text):
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        told = "" if limit < 0 else f", and this shell allows {limit / 2**30:.1f} GiB (ulimit -v)"
        reason = f" ({text[:200]})" if text else ""
        return GradbenchError(f"short of memory{reason}: gradbench takes 4 GiB and more{told}")
    if isinstance(fault, OSError) and fault.filename is not None:
        return GradbenchError(f"{fault.filename}: {fault.strerror}")
    raise fault


def data_root(words: Iterable[str]) -> Path:
    """Return the folder of all data sets: data.root=DIR, GRADBENCH_DATA, or data."""
    given = [w.removeprefix("data.root=") for w in words if w.startswith("data.root=")]
    return Path((given or [""])[-1] or os.environ.get("GRADBENCH_DATA") or "data").expanduser()


def config_dirs(words: Iterable[str]) -> list[Path]:
    """Return the folder that --config-dir names, if any."""
    words = list(words)
    found = [w.split("=", 1)[1] for w in words if w.startswith("--config-dir=")]
    found += [b for a, b in pairwise(words) if a in ("--config-dir", "-cd")]
    for folder in found:
        if not Path(folder).is_dir():
            raise GradbenchError(f"--config-dir {folder}: there is no such folder")
    return [Path(folder) for folder in found]


def tell_shadows(dirs: Iterable[Path]) -> None:
    """Name the user's own members that take the place of built-in ones, on standard error."""
    from gradbench.config import replaced_members

    taken = replaced_members(dirs)
    if taken:
        listed = ", ".join(map(printable, taken))
        told = "your own files take the place of built-in ones"
        print(f"gradbench: {told}: {listed}", file=sys.stderr)


def braced(word: str) -> str:
    """Return a setting as Hydra takes it.

    The name of a file of every seed goes into quotes, since a brace begins a mapping; and what a
    network was trained on may be told though its file in `configs/backbone/` does not name that.

    >>> braced("backbone.checkpoint=f-{seed}.pt")
    "backbone.checkpoint='f-{seed}.pt'"
    >>> braced("backbone.trained_on=names-{seed}.txt")
    "++backbone.trained_on='names-{seed}.txt'"
    >>> braced("seeds=[0,1]")
    'seeds=[0,1]'
    """
    key, _, path = word.partition("=")
    of_seeds = key in ("backbone.checkpoint", "backbone.trained_on") and "{seed}" in path
    if of_seeds and path[0] not in "'\"":
        word = f"{key}='{path}'"
    return f"++{word}" if key == "backbone.trained_on" else word
