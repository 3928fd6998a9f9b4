"""`gradbench data show`: a picture of a data set, or of what a challenge makes of it."""

from __future__ import annotations

import os
import re
from itertools import pairwise
from pathlib import Path

from gradbench.cli.hydra_app import composed, composed_dirs, launch
from gradbench.cli.words import OPTIONS_WITH_VALUE
from gradbench.errors import GradbenchError
from gradbench.support.progress import step

HELP = """\
gradbench data show NAME [challenge=C] [out=FILE.png] [n=8] [seed=0] [key=value ...]

Writes a picture of a data set: some images of every class. With a challenge it shows what becomes
of the images: a corruption at every level, an attack with its perturbation and what the network
says before and after, images of another set before and after they are brought to shape.

  gradbench data show cifar10
  gradbench data show cifar10 challenge=gaussian_noise 'levels=[1,3,5]'
  gradbench data show cifar10 challenge=textures
  gradbench data show cifar10 challenge=fgsm backbone.width=32 backbone.checkpoint=FILE
  gradbench data show cifar10 'challenge={use: fgsm, epsilon: 0.1}' n=4 seed=1

n is the number of images (of each class, without a challenge), seed chooses them. All settings of
`gradbench run` hold (data.root=DIR, device=cpu, --config-dir DIR); an attack takes the network of
backbone.checkpoint, else the trained one that the store has. Nothing is downloaded or trained.
Writes to outputs/data unless out names a file.
"""


def main(words: list[str]) -> None:
    """Run the command."""
    if any(word in ("-h", "--help") for word in words):
        print(HELP)
        return
    from gradbench.showing.choice import Choice

    words, given = _taken(words, ("challenge", "out", "n", "seed"))
    names = [
        word
        for before, word in pairwise(["", *words])
        if "=" not in word and word[:1] != "-" and before not in OPTIONS_WITH_VALUE
    ]
    if len(names) != 1:
        raise GradbenchError(
            f"data show {' '.join(names)}: name one data set, `gradbench data list` tells all"
        )
    words.remove(names[0])
    challenge = given.get("challenge")
    choice = Choice(_whole("n", given.get("n")), _whole("seed", given.get("seed")) or 0)
    out = _file(given.get("out"), names[0], challenge)
    words.append(f"dataset={names[0]}")
    if challenge is not None:
        listed = challenge if challenge.startswith("[") else f"[{challenge}]"
        words.append(f"challenges={listed}")

    def task(cfg) -> None:
        with step("loading libraries"):
            from gradbench.run.experiment import read
            from gradbench.showing.challenges import show_challenge
            from gradbench.showing.sets import show_set
            from gradbench.store import Store

        experiment = read(composed(cfg), composed_dirs())
        _make_folder(out)
        store = Store(Path(experiment.config["store"]).expanduser())
        with step(f"drawing {out.name}"):
            if challenge is None:
                show_set(experiment.dataset, experiment.data, choice, out)
            else:
                show_challenge(experiment, store, choice, out, challenge)
        print(f"written to {out}")

    launch(task, words, HELP)


def _taken(words: list[str], keys: tuple[str, ...]) -> tuple[list[str], dict[str, str]]:
    """Return the words that are for Hydra, and the values of those that are not."""
    given = {}
    for word in words:
        key, found, value = word.partition("=")
        if found and key in keys:
            given[key] = value
    return [w for w in words if w.partition("=")[0] not in keys or "=" not in w], given


def _whole(key: str, text: str | None) -> int | None:
    if text is None:
        return None
    if not re.fullmatch(r"-?\d{1,9}", text):
        raise GradbenchError(f"{key}={text}: a whole number")
    return int(text)


def _file(text: str | None, name: str, challenge: str | None) -> Path:
    """Return the file to write."""
    if text is None:
        slug = re.sub(r"[^\w.]+", "-", challenge or "").strip("-")
        text = f"outputs/data/{name}{'-' if slug else ''}{slug}.png"
    path = Path(text).expanduser()
    if path.suffix.lower() != ".png" or path.is_dir():
        raise GradbenchError(f"out={text}: name a file that ends in .png")
    return path


def _make_folder(path: Path) -> None:
    """Make the folder of a file; one that cannot be written to is told before any work."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise GradbenchError(f"out={path} cannot be written: {fault.strerror}") from fault
    if not os.access(path.parent, os.W_OK):
        raise GradbenchError(f"out={path} cannot be written: no rights in {path.parent}")
