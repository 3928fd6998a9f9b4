"""`gradbench data show`: a picture of a data set, or of what a challenge makes of it."""

from __future__ import annotations

import os
import re
from argparse import Namespace
from pathlib import Path

from gradbench.cli.arguments import Parser, add_overrides, split_words
from gradbench.errors import GradbenchError
from gradbench.support.progress import step

DESCRIPTION = """\
Writes a picture of a data set: some images of every class. With a challenge it shows what becomes
of the images: a corruption at every level, an attack with its perturbation and what the network
says before and after, images of another set before and after they are brought to shape.

  gradbench data show cifar10
  gradbench data show cifar10 challenge=gaussian_noise 'levels=[1,3,5]'
  gradbench data show cifar10 challenge=fgsm backbone.width=32 backbone.checkpoint=FILE
  gradbench data show cifar10 'challenge={use: fgsm, epsilon: 0.1}' n=4 seed=1
"""
EPILOG = """\
Beside the name stand challenge=C, out=FILE.png, n=8 (images, of each class without a challenge)
and seed=0, which chooses them. All settings of `gradbench run` hold (data.root=DIR, device=cpu);
an attack takes the network of backbone.checkpoint, else the trained one that the store has.
Nothing is downloaded or trained. Writes to outputs/data unless out names a file.
"""


def configure(parser: Parser) -> None:
    """Add the arguments of the command."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    add_overrides(parser)
    parser.set_defaults(main=main, parser=parser)


def main(args: Namespace) -> None:
    """Draw the picture."""
    from gradbench.cli.composing import compose, print_config
    from gradbench.report.gallery import Choice

    names, own, others = split_words(args.words, ("challenge", "out", "n", "seed"))
    if len(names) != 1:
        raise GradbenchError(
            f"data show {' '.join(names)}: name one data set, `gradbench data list` names all"
        )
    challenge = own.get("challenge")
    choice = Choice(_whole("n", own.get("n")), _whole("seed", own.get("seed")) or 0)
    out = _file(own.get("out"), names[0], challenge)
    args.words = [*others, f"dataset={names[0]}"]
    if challenge is not None:
        listed = challenge if challenge.startswith("[") else f"[{challenge}]"
        args.words.append(f"challenges={listed}")
    if print_config(args):
        return
    config = compose(args.words, args.config_dir)
    with step("loading libraries"):
        from gradbench.report.gallery import show_challenge, show_set
        from gradbench.run.experiment import build_experiment
        from gradbench.store import Store

    experiment = build_experiment(config, args.config_dir)
    try:  # before any work
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise GradbenchError(f"out={out} cannot be written: {fault.strerror}") from fault
    if not os.access(out.parent, os.W_OK):
        raise GradbenchError(f"out={out} cannot be written: no rights in {out.parent}")
    store = Store(Path(config["store"]).expanduser())
    with step(f"drawing {out.name}"):
        if challenge is None:
            show_set(experiment.dataset, experiment.data, choice, out)
        else:
            show_challenge(experiment, store, choice, out, challenge)
    print(f"written to {out}")


def _whole(key: str, text: str | None) -> int | None:
    if text is not None and not re.fullmatch(r"-?\d{1,9}", text):
        raise GradbenchError(f"{key}={text}: a whole number")
    return None if text is None else int(text)


def _file(text: str | None, name: str, challenge: str | None) -> Path:
    if text is None:
        slug = re.sub(r"[^\w.]+", "-", challenge or "").strip("-")
        text = f"outputs/data/{name}{'-' if slug else ''}{slug}.png"
    path = Path(text).expanduser()
    if path.suffix.lower() != ".png" or path.is_dir():
        raise GradbenchError(f"out={text}: name a file that ends in .png")
    return path
