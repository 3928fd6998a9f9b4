"""The runs of `gradbench tables`: --plan tells of them, --run makes them."""

from __future__ import annotations

from pathlib import Path

from gradbench.cli import run_command
from gradbench.cli.complaints import in_a_sentence
from gradbench.cli.overrides import check_overrides
from gradbench.cli.tables_asked import Asked
from gradbench.config import compose
from gradbench.data.settings import DataSettings
from gradbench.errors import GradbenchError
from gradbench.planning.forecast import forecast
from gradbench.report.claim import free
from gradbench.report.papers.fill import FilledTable
from gradbench.report.papers.missing import MissingRun, missing_runs, summary
from gradbench.support.progress import duration, say, step


def _missing(asked: Asked, filled: list[FilledTable]) -> list[MissingRun]:
    """Return the runs that are missing, of those that the user wants."""
    check_overrides(asked.given, multirun=False)
    data = [word for word in asked.given if word.startswith("data.")]
    with in_a_sentence(data):
        settings = compose(data, asked.dirs)["data"]
    data = DataSettings(Path(settings["root"]), settings["download"])
    found = missing_runs(filled, asked.dirs, data)
    return [run for run in found if all(getattr(run, k) == v for k, v in asked.only.items())]


def make(asked: Asked, filled: list[FilledTable]) -> list[str]:
    """Make the runs that are missing; return the folders of those that failed."""
    failed = []
    for run in _missing(asked, filled):
        if not run.cells:
            for reason, count in run.absent.items():
                say(f"{run.experiment}, {run.backbone}: {count} cells without images: {reason}")
            continue
        words = run.arguments(asked.given)
        with in_a_sentence(words):
            usual = run.folder(asked.places[0], asked.given, asked.dirs)
            out = free(usual, compose(words, asked.dirs))
        words = [*words, f"out={out}", *asked.options]
        say(f"gradbench run {' '.join(words)}")
        try:
            run_command.main(words)
        except SystemExit as stop:
            failed += [str(out)] if stop.code else []
    return failed


def plan(asked: Asked, filled: list[FilledTable]) -> None:
    """Print what is missing, why, and what the runs would take."""
    for one in filled:
        print("\n".join(summary(one)), end="\n\n")
    whole, made, refused = 0.0, 0, []
    for run in _missing(asked, filled):
        words = run.arguments(asked.given)
        print(f"gradbench run {' '.join([*words, *asked.options])}")
        try:
            with in_a_sentence(words), step(f"planning {run.experiment}"):
                seconds, notes = forecast(words, asked.dirs)
        except (
            GradbenchError
        ) as fault:  # a setting that this network has not, for example its width
            print(f"  will not be made: {fault}")
            refused.append(fault)
            continue
        if not run.cells:  # the reasons of the run itself say how to get the images
            reasons = notes or [f"will not be made: {reason}" for reason in run.absent]
            print(f"  {'; '.join(reasons)} ({sum(run.absent.values())} cells)")
            continue
        made, whole = made + 1, whole + seconds
        print(f"  fills {run.cells} cells in about {duration(seconds)}, then fits detectors")
        for note in [*notes, *(f"{n} cells stay empty: {r}" for r, n in run.absent.items())]:
            print(f"  {note}")
    if refused and not made:
        raise refused[0]
    print(
        f"{made} run{'s' * (made != 1)}, about {duration(whole)} in all, then fitting and measuring"
    )
