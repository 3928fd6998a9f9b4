"""`gradbench sweep`: every combination of comma lists, each a run of its own."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from gradbench.cli.hydra_app import check_overrides, launch
from gradbench.cli.words import config_dirs

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
    base = base_folder(words)
    try:
        launch(task, [*words, f"out={base}"], HELP, multirun=True)
    finally:
        merge(base)


def base_folder(words: list[str]) -> Path:
    """Return the folder of the whole sweep: `out` as it is without the comma lists."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from gradbench.config import compose

    check_overrides(words, multirun=True)
    parser = OverridesParser.create()
    settings = [w for w in words if "=" in w and not w.startswith("-")]
    single = [w for w in settings if not parser.parse_override(w).is_sweep_override()]
    single = [w for w in single if not w.startswith("hydra")]
    return Path(compose(single, config_dirs(words))["out"])


def task(cfg) -> None:
    """Carry out one job of a sweep."""
    from hydra.core.hydra_config import HydraConfig

    from gradbench.cli.run_command import carry_out

    job = HydraConfig.get().job
    swept = [w for w in HydraConfig.get().overrides.task if not w.startswith("out=")]
    name = re.sub(r"[^\w.=,-]+", "_", ",".join(swept)) or str(job.num)
    carry_out(cfg, Path(cfg.out) / name[:150])


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
