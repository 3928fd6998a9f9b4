"""`gradbench sweep`: every combination of comma lists, each a run of its own."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import shutil
import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from traceback import walk_tb
from typing import Any

from gradbench.cli.arguments import Parser, add_overrides, with_dirs
from gradbench.errors import GradbenchError, printable
from gradbench.support.progress import step

JOBS = ".gradbench-jobs"
"""Folder in which every finished job leaves its name: jobs may run in other processes. What Hydra
writes of a sweep goes there too (`hydra.sweep.dir`), and with it in the end."""
COLUMNS = {
    *("seed", "seeds", "level", "levels", "challenges", "detectors", "backbone", "backbone.width"),
    *("dataset", "protocol", "experiment", "name", "challenge.seed", "detector.seed"),
    "evaluation.seed",
}
"""Settings that stand in a column of their own."""
DESCRIPTION = """\
Runs every combination of the comma lists (Hydra multirun). Each job writes to <out>/<job>; rows of
all jobs go to <out>/results.csv (of several levels, their picture to <out>/levels.png), settings
and names of the jobs to <out>/sweep.json. All jobs share one store. A job that fails leaves the
others running and is reported at the end; the same command again does only what is missing.

  gradbench sweep experiment=quickstart seed=0,1,2
  gradbench sweep experiment=quickstart level=1,2,3,4,5 launcher=joblib
"""
EPILOG = """\
launcher=joblib runs jobs side by side on this machine (hydra.launcher.n_jobs=2), launcher=slurm and
launcher=ray on a cluster; each needs an extra of gradbench, and all of them give the same rows.
"""


def configure(parser: Parser) -> None:
    """Add the arguments of the command."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    add_overrides(parser)


def main(args: Namespace) -> None:
    """Run all jobs and join their rows."""
    from gradbench.cli.composing import (
        compose,
        hydra_faults,
        is_sweep,
        prepare_overrides,
        print_config,
    )
    from gradbench.config import hydra_session
    from gradbench.report.claim import check_sweep_claim

    if print_config(args):
        return
    dirs = args.config_dir
    words = prepare_overrides(args.words, dirs, for_sweep=True)
    settings = [word for word in words if not word.startswith("hydra")]
    fixed = [word for word in settings if not is_sweep(word)]
    config = compose(fixed, dirs, for_sweep=True)
    base = Path(config["out"]).expanduser()
    check_sweep_claim(base, config)  # before any work
    # jobs are named after what differs between them
    keys = ["out", *map(_key, fixed)]
    naming = f"hydra.job.config.override_dirname.exclude_keys=[{','.join(keys)}]"
    swept = {_key(word) for word in settings} - set(keys)
    logging.getLogger("hydra").addHandler(logging.NullHandler())  # its faults are reported once
    with _hold(base):
        try:
            with _launcher_faults(base), hydra_faults(words, dirs), hydra_session(dirs) as hydra:
                hydra.multirun("config", task, [*words, f"out={_quoted(base)}", naming])
            if not any((base / JOBS).glob("*.json")):
                over = ", ".join(sorted(swept))
                raise GradbenchError(f"a sweep over {over} has no values to run")
        finally:  # rows of the jobs that finished are joined also where others failed
            with _write_faults(base), step("joining the rows of the jobs"):
                merge(base, config, named=not swept <= COLUMNS)


def _key(word: str) -> str:
    return word.split("=", 1)[0].lstrip("+~")


@contextlib.contextmanager
def _hold(base: Path) -> Iterator[None]:
    """Lock the folder of a sweep, which begins and ends without names of finished jobs."""
    from gradbench.report.claim import locked

    def remove_if_empty() -> None:
        with contextlib.suppress(OSError):
            base.rmdir()

    with contextlib.ExitStack() as stack:
        with _write_faults(base):
            stack.callback(remove_if_empty)
            stack.enter_context(locked(base))
        stack.callback(shutil.rmtree, base / JOBS, ignore_errors=True)
        shutil.rmtree(base / JOBS, ignore_errors=True)
        yield


@contextlib.contextmanager
def _write_faults(base: Path) -> Iterator[None]:
    """Put into one sentence that the folder of a sweep cannot be written."""
    try:
        yield
    except OSError as fault:
        raise GradbenchError(
            f"the rows of the sweep cannot be written to {printable(base)} "
            f"({fault.strerror or fault}): make room or rights there, or name another folder with "
            "out=DIR; jobs and products that were finished are kept"
        ) from fault


@contextlib.contextmanager
def _launcher_faults(base: Path) -> Iterator[None]:
    """Put into one sentence what a launcher raises when it fails or one of its workers dies."""
    try:
        yield
    except Exception as fault:
        frames = [frame.f_globals.get("__name__", "") for frame, _ in walk_tb(fault.__traceback__)]
        roots = [name.partition(".")[0] for name in (type(fault).__module__, frames[-1])]
        launcher = next((root for root in roots if root in ("joblib", "submitit", "ray")), None)
        if launcher is None:
            raise
        first = (str(fault).strip().splitlines() or [""])[0][:200]
        logs = base / ".submitit"
        where = f"; its last words stand in {logs}" if logs.is_dir() else ""
        raise GradbenchError(
            f"a worker of the sweep died, or {launcher} failed ({type(fault).__name__}: "
            f"{first}){where}: jobs and products that were finished are kept, and the same command "
            "does what is missing"
        ) from fault


def _quoted(path: Path) -> str:
    """Return a path as Hydra reads it back, commas and spaces included."""
    return "'" + str(path).replace("'", "\\'") + "'"


def task(cfg: Any) -> None:
    """Carry out one job of a sweep, in whatever process and on whatever machine."""
    from hydra.core.hydra_config import HydraConfig

    from gradbench.cli.run_command import carry_out
    from gradbench.config import builtin_dir, check_settings, resolve_references

    hydra = HydraConfig.get()
    name = re.sub(r"[^\w.=,-]+", "_", hydra.job.override_dirname) or str(hydra.job.num)
    if len(name.encode()) > 150:
        name = f"{name.encode()[:140].decode(errors='ignore')}-{hydra.job.num}"
    start = hydra.runtime.cwd  # relative paths of the sweep start from there
    if not Path(start).is_dir():
        raise GradbenchError(
            f"{start}, in which the sweep was begun, is not on this machine: begin it in a folder "
            "that all machines share"
        )
    with contextlib.chdir(start):
        # workers that a launcher starts know nothing of the folders that the command line named
        sources = [s.path for s in hydra.runtime.config_sources if s.schema == "file" and s.path]
        dirs = [Path(path) for path in sources if Path(path) != builtin_dir()]
        sys.path += [str(p.absolute()) for p in dirs if str(p.absolute()) not in sys.path]
        config = resolve_references(cfg)
        check_settings(config)
        out = Path(config["out"]).expanduser()
        carry_out(config, dirs, out / name, run_words(hydra.overrides.task, out / name, dirs))
        (out / JOBS).mkdir(parents=True, exist_ok=True)
        (out / JOBS / f"{hydra.job.num}.json").write_text(json.dumps(name))


def run_words(settings: Iterable[str], out: Path, dirs: Iterable[Path]) -> list[str]:
    """Return the words behind `gradbench run` that do what one job of a sweep did.

    >>> run_words(["seed=1", "launcher=joblib", "level=1", "out=a"], Path("a/level=1"), [])
    ['seed=1', 'level=1', "out='a/level=1'"]
    """
    words = [w for w in settings if not w.lstrip("+").startswith(("out=", "launcher="))]
    return with_dirs([*words, f"out={_quoted(out)}"], dirs)


def merge(base: Path, config: Mapping[str, Any], named: bool) -> None:
    """Write the rows of the jobs that this sweep finished to one results.csv.

    Args:
        base: folder of the sweep.
        config: what is the same in all jobs.
        named: put the job's name into the column `variant`, where jobs differ in something that
            is no column; also done where two jobs have different numbers in one place.
    """
    import pandas

    from gradbench.report import figures
    from gradbench.report.claim import move_sweep_into_place
    from gradbench.run.rows import NAMING, frame, read_csv, write_csv

    names = sorted({json.loads(path.read_text()) for path in (base / JOBS).glob("*.json")})
    if not names:
        return
    parts = [read_csv(base / name / "results.csv") for name in names]
    rows = pandas.concat(parts).drop_duplicates()
    if named or rows.duplicated([*NAMING]).any():
        for name, part in zip(names, parts):
            part["variant"] = [f"{variant}; {name}" if variant else name
                               for variant in part["variant"]]  # fmt: skip
        rows = pandas.concat(parts)
    merged = frame(rows.astype(object).where(rows.notna(), None).to_dict("records"))
    write_csv(merged, base / JOBS / "results.csv")
    summary = f"{len(parts)} jobs, rows in {base / 'results.csv'}"
    levels = base / JOBS / "levels.png"
    # level 0 is that of rows without one: a curve needs two others
    if merged["level"].nunique() > 2 and figures.levels(levels, "AUROC against level", merged):
        summary += f", picture: {base / 'levels.png'}"
    move_sweep_into_place(base, base / JOBS, config, names)
    print(summary, file=sys.stderr)
