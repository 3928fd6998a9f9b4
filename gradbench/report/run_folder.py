"""The folder that a run leaves: rows, costs, table, figures, provenance, model."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from gradbench.backbones.published import PUBLISHED, describe_origin
from gradbench.config import replaced_members
from gradbench.errors import GradbenchError, printable
from gradbench.report import claim, figures, provenance, run_tables
from gradbench.report.costs import Detectors, collect_costs, costs_table, write_costs
from gradbench.report.finished_run import (
    PARTIAL,
    RUN_JSON,
    FinishedRun,
    list_files,
    write_record,
)
from gradbench.report.model_folder import write_models
from gradbench.report.run_rows import RunRows, best_detectors
from gradbench.run.experiment import Cell
from gradbench.run.pass_times import costliest
from gradbench.run.results import Results
from gradbench.run.rows import write_csv
from gradbench.store import Store
from gradbench.support.on_demand import OnDemand
from gradbench.support.progress import say, step
from gradbench.support.text import file_name

PANELS, LINES, CURVES = 20, 12, 8
"""Panels that are looked at one by one; lines of sets, and curves that cross, told apart."""
BASELINE = "msp"
"""Detector that is always drawn."""


class RunFolder:
    """Where a run writes; everything is written beside its place and moved there when whole.

    Files that are not the run's own stay: see `claim` for what is replaced.

    Raises:
        GradbenchError: if it cannot be written, or holds another run or files of somebody else.
    """

    def __init__(self, path: Path, config: Mapping[str, Any]):
        self.path, self._config = Path(path), config
        self._part = self.path / PARTIAL
        self.begun = time.time()
        claim.check_claim(self.path, config)
        with self._writing():
            absent = [one for one in (self.path, *self.path.parents) if not one.exists()]
            trial = self.path / f".trial-{os.getpid()}"
            trial.mkdir(parents=True)
            trial.rmdir()
            with contextlib.suppress(OSError):
                for one in absent:  # a run that stops early leaves no empty folder
                    one.rmdir()

    def write(self, results: Results, store: Store, command: str) -> None:
        """Write everything that the run found.

        Raises:
            GradbenchError: if the folder cannot be written, or has become that of another run
                meanwhile; what was there before stays.
        """
        writing = step(f"writing results to {printable(self.path)}")
        with self._writing(), claim.locked(self.path), writing:
            if (self._part / RUN_JSON).is_file():  # whole, of a call that was killed moving it
                claim.move_into_place(self.path)
            try:
                lost = self._write(results, store, command)
                claim.move_into_place(self.path)
            finally:
                if not (self._part / RUN_JSON).is_file():
                    shutil.rmtree(self._part, ignore_errors=True)
        if lost:
            say(f"{printable(self.path)}: no longer holds {'; '.join(lost)}, as a former call did")

    def _write(self, results: Results, store: Store, command: str) -> list[str]:
        """Write all beside its place; return what the folder no longer holds."""
        detectors = {name: costliest(results, name) for name in results.experiment.detectors}
        about = describe_run(results, command, detectors)
        rows, part = results.frame(), self._part
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        write_csv(rows, part / "results.csv")
        costs = collect_costs(store, detectors)
        write_costs(costs, part / "costs.csv")
        (part / "costs.md").write_text(costs_table(costs, detectors), encoding="utf-8")
        (part / "table.md").write_text(run_tables.write_markdown(rows, about), encoding="utf-8")
        (part / "figures").mkdir()
        with step("drawing figures"):
            _draw(results, rows, part / "figures")
        write_models(results, part / "model")
        written = (path for path in sorted(part.rglob("*")) if path.is_file())
        files = list_files(part, [path.relative_to(part).as_posix() for path in written])
        lost = claim.check_claim(self.path, self._config, files)
        write_record(part, self._record(results, store, about) | {"files": files})
        return lost

    def _record(self, results: Results, store: Store, about: dict[str, Any]) -> dict[str, Any]:
        return {
            "about": about,
            "config": dict(results.experiment.config),
            "versions": provenance.versions(),
            "code": provenance.code(),
            "hardware": provenance.hardware(results.experiment.device),
            "data": results.sets,
            "networks": {
                seed: {
                    "accuracy": results.accuracy[seed],
                    "weights": f.weights,
                    "origin": f.origin,
                    "trained_on": dict(f.trained_on),
                }
                for seed, f in results.networks.items()
            },
            "time": {
                "begun": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(self.begun)),
                "seconds": round(time.time() - self.begun, 1),
                "products_made": len(store.made),
                "products_found": len(store.used) - len(store.made),
            },
        }

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Put into one sentence that the folder cannot be written."""
        try:
            yield
        except (OSError, SafetensorError) as fault:  # safetensors' word for a full disk
            reason = getattr(fault, "strerror", None) or str(fault)
            raise GradbenchError(
                f"the results cannot be written to {self.path} ({reason}): make room or rights "
                "there, or name another folder with out=DIR; products in the store are kept"
            ) from fault


def terminal(folder: Path) -> str:
    """Return the main table of a finished run as text, and where the rest is.

    Raises:
        GradbenchError: if the folder holds no finished run, or a file is broken off or edited.
    """
    run = FinishedRun(folder)
    text = run_tables.write_terminal(run.frame, run.record["about"])
    all_tables, pictures = (printable(run.path / name) for name in ("table.md", "figures"))
    return f"{text}\n\nall tables: {all_tables}, pictures: {pictures}"


def describe_run(results: Results, command: str, fitted: Detectors) -> dict[str, Any]:
    """Return what a table says besides its numbers, JSON-able; `fitted` as by `costliest`."""
    experiment = results.experiment
    backbone = experiment.config["backbone"]
    resolved = experiment.backbone(experiment.seeds[0])
    detectors = {name: experiment.detector(name) for name in experiment.detectors}
    return {
        "experiment": experiment.name,
        "in_dist": experiment.dataset.name,
        "backbone": backbone["name"],
        "width": backbone.get("width"),
        "network_origin": describe_origin(resolved) if resolved.get(PUBLISHED) else "",
        "accuracy": {str(seed): value for seed, value in results.accuracy.items()},
        "n_accuracy": len(results.images.normal),
        "n_clean": len(results.images.normal),
        "hold_out": results.hold_out,
        "task": experiment.task.name,
        "protocol": experiment.protocol.title,
        "told": experiment.protocol.explanation,
        "left_out": dict(experiment.left_out),
        "refused": dict(experiment.refused),
        "detectors": {
            name: {
                "supervision": detector.supervision,
                "clean_seen": results.images.provenance.describe_clean_seen(detector.clean_seen),
                "reads": list(detector.reads),
                "passes": str(fitted[name].pass_count) if fitted[name] else "",
            }
            for name, detector in detectors.items()
        },
        "remark": experiment.config["remark"],
        "shadows": replaced_members(experiment.dirs),
        "command": command,
    }


def _draw(results: Results, rows: Any, folder: Path) -> None:
    """Draw the pictures of every network; of many cells, some levels of every challenge."""
    in_dist, cells = results.experiment.dataset.name, results.experiment.cells
    run_rows = RunRows(rows, results.experiment.protocol.title)
    drawn = {name for curves in results.curves.values() for own in curves.values() for name in own}
    named = [name for name in run_rows.methods(results.experiment.detectors) if name in drawn]
    methods, best = best_detectors(run_rows, named, CURVES, BASELINE)
    best = f"; {best}" if best else ""
    for seed, curves in results.curves.items():
        end = "" if len(results.curves) == 1 else f"_s{seed}"
        titles, which = fewer_levels(cells, curves, PANELS)
        if titles:
            of_title = {}
            for one in titles:
                # Curves stay in the store until they are drawn: those of a large run fill memory.
                of_title[one] = OnDemand()
                for method in methods:
                    if method in curves[one]:
                        of_title[one].add(method, partial(curves[one].__getitem__, method))
            figures.roc(folder / f"roc{end}.png", f"ROC: {in_dist} in{which}{best}", of_title)
        for method in results.experiment.detectors:
            scores = OnDemand()
            for one in titles:
                if method in curves[one]:
                    scores.add(one, partial(curves[one].__getitem__, method))
            if len(scores):
                path = folder / f"scores_{file_name(method)}{end}.png"
                figures.histograms(path, f"Scores of {method}: {in_dist} in{which}", scores)
        if means := results.profiles[seed]:
            names = [n for n, _ in results.networks[seed].backbone.network.named_parameters()]
            titles, which = fewer_levels(cells, means, LINES)
            title = f"Mean squared gradient norm of every parameter tensor{which}"
            means = {name: means[name] for name in titles}
            figures.profile(folder / f"gradient_profile{end}.png", title, names, means)
    metric = results.experiment.task.headline.metric
    title = f"{figures.label(metric)} against level: {in_dist} in{best}"
    figures.levels(folder / "levels.png", title, rows[rows["method"].isin(methods)], metric)


def fewer_levels(cells: Sequence[Cell], titles: Iterable[str], most: int) -> tuple[list, str]:
    """Return all titles; of too many, those of the first and last levels, or of the last alone.

    Sets without levels are always kept. The second value says in a figure's title which they are.
    """
    titles = list(titles)
    levels: dict[str, list[str]] = {}
    for cell in cells:
        if cell.level is not None and cell.title in titles:
            levels.setdefault(cell.name, []).append(cell.title)
    shown, which = titles, ""
    for words, places in (("first and last level", (0, -1)), ("last level", (-1,))):
        if len(shown) > most:
            left = {one for own in levels.values() for one in own}
            left -= {own[place] for own in levels.values() for place in places}
            shown, which = [title for title in titles if title not in left], f"; {words}"
    return shown, which if len(shown) < len(titles) else ""
