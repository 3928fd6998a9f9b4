"""`gradbench run`: one experiment in one process."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from gradbench.cli.hydra_app import composed, composed_dirs, launch
from gradbench.cli.words import tell_shadows

HELP = """\
gradbench run [key=value ...]

Carries out one experiment and writes results.csv, costs.csv, table.md, run.json, figures/ and
model/ to out=DIR. What the store holds already is not computed again, so the same command after a
kill goes on, and one more challenge, level or detector costs only itself. A folder that holds a run
of another configuration, or files of yours where results would go, is refused before any work.

  experiment=NAME                   `gradbench list experiments` tells which
  backbone=resnet18 backbone.width=32 backbone.checkpoint=FILE
  'seeds=[0,1,2]' 'backbone.checkpoint=f-{seed}.safetensors'   (one file for each seed)
  backbone.trained_on=FILE          names of its training images; or all, without_hold_out
  dataset=cifar10 data.root=DIR
  'challenges=[svhn,textures,fgsm]' 'levels=[1,3,5]'
  'challenges=[{use: fgsm, name: strong, epsilon: 0.1}]'
  'detectors=[msp,gradient]' protocol=grouped 'seeds=[0,1,2]'
  training.epochs=30 device=auto devices=1 out=DIR store=DIR

--cfg job prints the configuration, --info how it came about, --config-dir DIR adds your files.
"""


def main(words: list[str]) -> None:
    """Run the command."""
    launch(task, words, HELP)


def task(cfg) -> None:
    """Carry out a composed configuration and print its table."""
    carry_out(cfg, Path(composed(cfg)["out"]).expanduser())


def carry_out(cfg, out: Path, words: Sequence[str] | None = None) -> None:
    """Run a composed configuration and write its results to a folder.

    Args:
        cfg: the configuration.
        out: the folder.
        words: behind `gradbench run`, noted as the command; those of this process where not given.
    """
    from gradbench.support.progress import step

    with step("loading libraries"):
        from gradbench.pipeline import run
        from gradbench.report import provenance
        from gradbench.report.run_folder import RunFolder, terminal
        from gradbench.run.experiment import read
        from gradbench.store import Store
        from gradbench.support.memory import keep_freed_memory

    keep_freed_memory()
    experiment = read(composed(cfg), dirs := composed_dirs())
    tell_shadows(dirs)
    folder = RunFolder(out, experiment.config)  # told before hours of work: unwritable, another run
    store = Store(Path(experiment.config["store"]).expanduser(), provenance.code())
    results = run(experiment, store)
    folder.write(results, store, command(sys.argv[1:] if words is None else words))
    print(terminal(out))


def command(words: Sequence[str]) -> str:
    """Return the command line that makes a run, without this machine's paths to the program."""
    import shlex

    return shlex.join(["gradbench", "run", *words])
