"""`gradbench plan`: what a run would do."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from gradbench.cli.arguments import Parser, add_overrides, warn_of_replaced_members
from gradbench.errors import printable
from gradbench.support.progress import duration, step

DESCRIPTION = """\
The steps of a run, how many of their products the store holds already, and an estimate of the time
for the rest, from a few steps timed on this machine. Takes the settings of `gradbench run` and
neither makes nor downloads anything.
"""


def configure(parser: Parser) -> None:
    """Add the arguments of the command."""
    parser.description = DESCRIPTION
    add_overrides(parser)


def main(args: Namespace) -> None:
    """Print the plan of a run."""
    from gradbench.cli.composing import compose, print_config

    if print_config(args):
        return
    config = compose(args.words, args.config_dir)
    with step("loading libraries"):
        from gradbench.run.experiment import build_experiment
        from gradbench.run.plan import plan
        from gradbench.store import Store

    experiment = build_experiment(config, args.config_dir)
    warn_of_replaced_members(args.config_dir)
    with step("planning"):
        lines = plan(experiment, Store(Path(config["store"]).expanduser()))
    print(f"{experiment.name}: {len(experiment.detectors)} detectors, store {config['store']}")
    width = max(len(line.what) for line in lines)
    counts = [f"{line.present} of {line.parts} there" if line.parts else "" for line in lines]
    wide = max(map(len, counts))
    for line, there in zip(lines, counts):
        takes = f"about {duration(line.seconds)}" if line.seconds else ""
        text = f"  {line.step:<10}{line.what:<{width}}  {there:<{wide}}  {takes:<15}{line.note}"
        print(printable(text.rstrip()))
    if any(line.step != "images" for line in lines):
        total = sum(line.seconds for line in lines)
        print(f"about {duration(total)} in all, then fitting and measuring")
