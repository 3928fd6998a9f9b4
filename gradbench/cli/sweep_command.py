"""`gradbench sweep`: every combination of comma lists, each a run of its own."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import shutil
import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from traceback import walk_tb
from typing import Any

from gradbench.cli.arguments import Parser, add_overrides
from gradbench.errors import GradbenchError, printable
from gradbench.support.progress import step

JOBS = ".gradbench-jobs"
"""Folder in which every finished job leaves its name: jobs may run in other processes. What Hydra
writes of a sweep goes there too (`hydra.sweep.dir`), and with it in the end."""
COLUMNS = (
    *("seed", "seeds", "level", "levels", "challenges", "detectors", "backbone", "backbone.width"),
    *("dataset", "protocol", "experiment", "name", "challenge.seed", "detector.seed"),
    "evaluation.seed",
)
"""Settings that stand in a column of their own."""
DESCRIPTION = """\
Runs every combination of the comma lists (Hydra multirun). Each job writes to <out>/<job>; rows of
all jobs go to <out>/results.csv.gz (of several levels, their picture to <out>/levels.png), settings
and names of the jobs to <out>/sweep.json. All jobs share one store. A job that fails leaves the
others running and is told at the end; the same command again does only what is missing.

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
    from gradbench.cli.composing import compose, is_sweep, look, prepare_overrides
    from gradbench.report.claim import check_sweep_claim

    if look(args):
        return
    words = prepare_overrides(args.words, args.config_dir, for_sweep=True)
    own = [word for word in words if not word.startswith("hydra")]
    fixed = [word for word in own if not is_sweep(word)]
    config = compose(fixed, args.config_dir, for_sweep=True)
    base = Path(config["out"]).expanduser()
    check_sweep_claim(base, config)  # before any work
    # jobs are named after what differs between them
    keys = ["out", *map(_key, fixed)]
    naming = f"hydra.job.config.override_dirname.exclude_keys=[{','.join(keys)}]"
    swept = {_key(word) for word in own} - set(keys)
    with _alone(base):
        try:
            with _deaths(base):
                _launch([*words, f"out={_quoted(base)}", naming], args.config_dir)
            if not any((base / JOBS).glob("*.json")):
                over = ", ".join(sorted(swept))
                raise GradbenchError(f"a sweep over {over} has no values to run")
        finally:
            with _writing(base), step("joining the rows of the jobs"):
                merge(base, config, named=not swept <= set(COLUMNS))


def _key(word: str) -> str:
    return word.split("=", 1)[0].lstrip("+~")


def _launch(words: Sequence[str], dirs: Sequence[Path]) -> None:
    """Have Hydra run every combination."""
    from gradbench.cli.composing import hydra_faults
    from gradbench.config import hydra_session

    logging.getLogger("hydra").addHandler(logging.NullHandler())  # its faults are told once
    with hydra_faults(words, dirs), hydra_session(dirs) as hydra:
        hydra.multirun("config", task, list(words))


@contextlib.contextmanager
def _alone(base: Path) -> Iterator[None]:
    """Hold the folder of a sweep, which begins and ends without names of finished jobs.

    Raises:
        GradbenchError: if it cannot be written.
    """
    with contextlib.ExitStack() as stack:
        from gradbench.report.claim import locked

        with _writing(base):
            stack.callback(_remove_if_empty, base)
            stack.enter_context(locked(base))
        stack.callback(shutil.rmtree, base / JOBS, ignore_errors=True)
        shutil.rmtree(base / JOBS, ignore_errors=True)
        yield


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


@contextlib.contextmanager
def _writing(base: Path) -> Iterator[None]:
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
def _deaths(base: Path) -> Iterator[None]:
    """Put into one sentence what a launcher raises when it fails, or a worker of its died."""
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
        where = f"; what it said last stands in {logs}" if logs.is_dir() else ""
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
    with _where_the_sweep_began(hydra.runtime.cwd):
        # workers that a launcher starts know nothing of the folders that the command line named
        sources = [s.path for s in hydra.runtime.config_sources if s.schema == "file" and s.path]
        dirs = [Path(path) for path in sources if Path(path) != builtin_dir()]
        sys.path += [str(p.absolute()) for p in dirs if str(p.absolute()) not in sys.path]
        config = resolve_references(cfg)
        check_settings(config)
        out = Path(config["out"]).expanduser()
        words = alone(hydra.overrides.task, out / name, dirs)
        carry_out(config, dirs, out / name, words)
        (out / JOBS).mkdir(parents=True, exist_ok=True)
        (out / JOBS / f"{hydra.job.num}.json").write_text(json.dumps(name))


def alone(settings: Iterable[str], out: Path, dirs: Iterable[Path]) -> list[str]:
    """Return the words behind `gradbench run` that do what one job of a sweep did.

    >>> alone(["seed=1", "launcher=joblib", "level=1", "out=a"], Path("a/level=1"), [])
    ['seed=1', 'level=1', "out='a/level=1'"]
    """
    kept = [w for w in settings if not w.lstrip("+").startswith(("out=", "launcher="))]
    return [*(f"--config-dir={d}" for d in dirs), *kept, f"out={_quoted(out)}"]


@contextlib.contextmanager
def _where_the_sweep_began(folder: str) -> Iterator[None]:
    """Work in the folder that relative paths of the sweep start from."""
    if not Path(folder).is_dir():
        raise GradbenchError(
            f"{folder}, in which the sweep was begun, is not on this machine: begin it in a folder "
            "that all machines share"
        )
    with contextlib.chdir(folder):
        yield


def merge(base: Path, config: Mapping[str, Any], named: bool) -> None:
    """Write the rows of the jobs that this sweep finished to one results.csv.

    Args:
        base: folder of the sweep.
        config: what is the same in all jobs.
        named: put the job's name into the column `variant`, where jobs differ in something that
            is no column; also done where two jobs have different numbers in one place.
    """
    import pandas

    from gradbench.report.claim import move_sweep_into_place
    from gradbench.run.rows import NAMING, frame, read_csv, write_csv

    names = sorted({json.loads(path.read_text()) for path in (base / JOBS).glob("*.json")})
    if not names:
        return
    parts = [read_csv(base / name / "results.csv") for name in names]
    rows = pandas.concat(parts).drop_duplicates()
    if named or rows.duplicated([*NAMING]).any():
        for name, part in zip(names, parts):
            part["variant"] = [f"{own}; {name}" if own else name for own in part["variant"]]
        rows = pandas.concat(parts)
    merged = frame(rows.astype(object).where(rows.notna(), None).to_dict("records"))
    write_csv(merged, base / JOBS / "results.csv")
    told = f"{len(parts)} jobs, rows in {base / 'results.csv'}"
    if merged["level"].nunique() > 2:  # no level and at least two of them
        from gradbench.report import figures

        if figures.levels(base / JOBS / "levels.png", "AUROC against level", merged):
            told += f", picture: {base / 'levels.png'}"
    move_sweep_into_place(base, base / JOBS, config, names)
    print(told, file=sys.stderr)
