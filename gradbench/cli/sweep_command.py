"""`gradbench sweep`: every combination of comma lists, each a run of its own."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser

from gradbench.cli.hydra_app import check_overrides, in_a_sentence, launch
from gradbench.cli.words import config_dirs
from gradbench.config import compose

HELP = """\
gradbench sweep [key=a,b,c ...]

Runs every combination of the comma lists (Hydra multirun). Each job writes to <out>/<job>, the
rows of all jobs to <out>/results.csv; all jobs share one store. A job that fails leaves the others
running and is told at the end; the same command again does only what is missing.

  gradbench sweep experiment=quickstart seed=0,1,2
  gradbench sweep experiment=quickstart level=1,2,3,4,5 hydra/launcher=joblib
"""


def main(words: list[str]) -> None:
    """Run the command."""
    if any(w in ("-h", "--help", "--cfg", "-c", "--info", "-i") for w in words):
        launch(task, words, HELP)
        return
    check_overrides(words, multirun=True)
    fixed = _fixed(words)
    with in_a_sentence(words):
        base = Path(compose(fixed, config_dirs(words))["out"])
    # jobs are named after what differs between them
    keys = ["out", *(w.split("=", 1)[0].lstrip("+~") for w in fixed)]
    naming = f"hydra.job.config.override_dirname.exclude_keys=[{','.join(keys)}]"
    try:
        launch(task, [*words, f"out={_quoted(base)}", naming], HELP, multirun=True)
    finally:
        merge(base)


def _fixed(words: list[str]) -> list[str]:
    """Return the overrides that are the same in every job."""
    parser = OverridesParser.create()
    settings = [w for w in words if "=" in w and not w.startswith(("-", "hydra"))]
    return [w for w in settings if not parser.parse_override(w).is_sweep_override()]


def _quoted(path: Path) -> str:
    """Return a path as Hydra reads it back, commas and spaces included."""
    return "'" + str(path).replace("'", "\\'") + "'"


def task(cfg) -> None:
    """Carry out one job of a sweep."""
    from hydra.core.hydra_config import HydraConfig

    from gradbench.cli.run_command import carry_out

    job = HydraConfig.get().job
    name = re.sub(r"[^\w.=,-]+", "_", job.override_dirname) or str(job.num)
    if len(name) > 150:
        name = f"{name[:140]}-{job.num}"
    carry_out(cfg, Path(cfg.out) / name)


def merge(base: Path) -> None:
    """Write the rows of all finished jobs to one results.csv."""
    import pandas

    from gradbench.evaluation.rows import frame, read_csv, write_csv

    parts = [read_csv(path) for path in sorted(base.glob("*/results.csv"))]
    if not parts:
        return
    rows = pandas.concat(parts).drop_duplicates()
    write_csv(frame(rows.astype(object).where(rows.notna(), None).to_dict("records")),
              base / "results.csv")  # fmt: skip
    print(f"{len(parts)} jobs, rows in {base / 'results.csv'}", file=sys.stderr)
