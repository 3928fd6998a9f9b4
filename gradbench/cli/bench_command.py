"""`gradbench bench`: what gradbench's own parts cost. Hands on to the benchmark of a subject."""

from __future__ import annotations

import importlib

from gradbench.errors import unknown

SUBJECTS = {
    "attacks": ("gradbench.bench.attacks", "speed and success of the attacks, beside foolbox's"),
    "corruptions": ("gradbench.bench.corruptions", "time of each family of corruptions by level"),
    "detectors": ("gradbench.bench.detectors", "time of fit and scores of each detector"),
    "engine": ("gradbench.bench.engine", "time and memory of the gradient engine, beside others"),
    "picture": ("gradbench.bench.picture", "a picture of the kept tables of `bench engine`"),
    "precision": ("gradbench.bench.precision", "error of each number format against float64"),
    "routes": ("gradbench.bench.routes", "prices behind the engine's choice of routes"),
}
"""Subject -> module whose `main` takes the words after it, and what it measures."""

HELP = """\
gradbench bench SUBJECT [options]

subjects
{subjects}

`gradbench bench SUBJECT --help` tells more. Prints a table and writes CSV, with hardware and
versions, to results/bench.
"""


def main(words: list[str]) -> None:
    """Run the command."""
    if not words or words[0] in ("-h", "--help"):
        width = max(map(len, SUBJECTS))
        listed = "\n".join(f"  {name:<{width}}  {what}" for name, (_, what) in SUBJECTS.items())
        print(HELP.format(subjects=listed))
        return
    subject, *rest = words
    if subject not in SUBJECTS:
        raise unknown("subject of bench", subject, SUBJECTS)
    importlib.import_module(SUBJECTS[subject][0]).main(rest)
