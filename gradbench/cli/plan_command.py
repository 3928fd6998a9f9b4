"""`gradbench plan`: what a run would do."""

from __future__ import annotations

from pathlib import Path

from gradbench.cli.hydra_app import composed, composed_dirs, launch
from gradbench.cli.words import tell_shadows
from gradbench.errors import printable

HELP = """\
gradbench plan [key=value ...]

The steps of a run, how many of their products the store holds already, and an estimate of the
time for the rest, from a few steps timed on this machine. Takes the settings of `gradbench run`
and neither makes nor downloads anything.
"""


def main(words: list[str]) -> None:
    """Run the command."""
    launch(task, words, HELP)


def task(cfg) -> None:
    """Print the plan of a composed configuration."""
    from gradbench.support.progress import duration, step

    with step("loading libraries"):
        from gradbench.planning.plan import plan
        from gradbench.run.experiment import read
        from gradbench.store import Store

    experiment = read(composed(cfg), dirs := composed_dirs())
    tell_shadows(dirs)
    with step("planning"):
        lines = plan(experiment, Store(Path(experiment.config["store"]).expanduser()))
    print(f"{experiment.name}: {len(experiment.detectors)} detectors, store {cfg.store}")
    width = max(len(line.what) for line in lines)
    counts = [f"{line.present} of {line.parts} there" if line.parts else "" for line in lines]
    wide = max(map(len, counts))
    for line, there in zip(lines, counts):
        takes = f"about {duration(line.seconds)}" if line.seconds else ""
        text = f"  {line.step:<10}{line.what:<{width}}  {there:<{wide}}  {takes:<15}{line.note}"
        print(printable(text.rstrip()))
    if all(line.step == "images" for line in lines):
        return
    total = sum(line.seconds for line in lines)
    print(f"about {duration(total)} in all, then fitting and measuring")
