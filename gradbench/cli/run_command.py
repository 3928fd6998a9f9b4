"""`gradbench run`: one experiment in one process."""

from __future__ import annotations

import shlex
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gradbench.cli.arguments import Parser, add_overrides, warn_of_replaced_members, with_dirs
from gradbench.support.progress import step

DESCRIPTION = """\
Carries out one experiment and writes results.csv, costs.csv, table.md, run.json, figures/ and
model/ to out=DIR. What the store holds already is not computed again, so the same command after a
kill goes on, and one more challenge, level or detector costs only itself. A folder that holds a run
of another configuration, or files of yours where results would go, is refused before any work.
"""
EPILOG = """\
  experiment=NAME dataset=cifar10 data.root=DIR protocol=grouped
  backbone=resnet18 backbone.width=32 backbone.checkpoint=FILE backbone.trained_on=FILE
  'challenges=[svhn,{use: fgsm, name: strong, epsilon: 0.1}]' 'levels=[1,3,5]'
  'detectors=[msp,gradient]' 'seeds=[0,1,2]' training.epochs=30 device=auto devices=1 store=DIR
`gradbench list` names the members of each group, --cfg job prints every setting.
"""


def configure(parser: Parser) -> None:
    """Add the arguments of the command."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    add_overrides(parser)


def main(args: Namespace) -> None:
    """Carry out an experiment and print its table."""
    from gradbench.cli.composing import compose, print_config

    if print_config(args):
        return
    config = compose(args.words, args.config_dir)
    words = with_dirs(args.words, args.config_dir)
    carry_out(config, args.config_dir, Path(config["out"]).expanduser(), words)


def carry_out(
    config: Mapping[str, Any], dirs: Sequence[Path], out: Path, words: Sequence[str]
) -> None:
    """Run a composed configuration and write its results to a folder.

    Args:
        config: the configuration.
        dirs: folders of the user's own configuration files.
        out: the folder.
        words: behind `gradbench run`, noted as the command.
    """
    with step("loading libraries"):
        from gradbench.report import provenance
        from gradbench.report.run_folder import RunFolder, terminal
        from gradbench.run.experiment import build_experiment
        from gradbench.run.run import run
        from gradbench.store import Store
        from gradbench.support.memory import keep_freed_memory

    keep_freed_memory()
    experiment = build_experiment(config, dirs)
    warn_of_replaced_members(dirs)
    # before hours of work: a folder that cannot be written or holds another run is refused here
    folder = RunFolder(out, experiment.config)
    store = Store(Path(config["store"]).expanduser(), provenance.code())
    results = run(experiment, store)
    folder.write(results, store, shlex.join(["gradbench", "run", *words]))
    print(terminal(out))
