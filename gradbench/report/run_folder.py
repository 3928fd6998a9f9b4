"""The folder that a run leaves: rows, costs, table, figures, provenance, model."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from gradbench.config import replaced_members
from gradbench.errors import GradbenchError, printable
from gradbench.report import claim, figures, provenance, selection, table
from gradbench.report.costs import Detectors, costs_table, write_costs
from gradbench.report.finished import PART, Finished
from gradbench.report.manifest import listed, write_told
from gradbench.report.model_folder import write_models
from gradbench.report.run_json import NAME
from gradbench.report.view import View
from gradbench.run.experiment import protocol_name
from gradbench.run.pass_times import costliest
from gradbench.run.results import Results
from gradbench.run.rows import write_csv
from gradbench.store import Store
from gradbench.support.on_demand import OnDemand
from gradbench.support.progress import say, step
from gradbench.support.text import file_name


class RunFolder:
    """Where a run writes; everything is written beside its place and moved there when whole.

    Files that are not the run's own stay: see `claim` for what is replaced.

    Args:
        path: the folder, made if it is not there.
        config: of the run.

    Raises:
        GradbenchError: if it cannot be written, or holds another run or files of somebody else.
    """

    def __init__(self, path: Path, config: Mapping[str, Any]):
        self.path, self._config = Path(path), config
        self.begun = time.time()
        claim.check(self.path, config)
        trial = self.path / f".trial-{os.getpid()}"
        try:
            absent = [one for one in (self.path, *self.path.parents) if not one.exists()]
            trial.mkdir(parents=True)
            trial.rmdir()
            with contextlib.suppress(OSError):
                for one in absent:  # a run that stops early leaves no empty folder
                    one.rmdir()
        except OSError as fault:
            raise self._refused(fault.strerror or str(fault)) from fault

    def write(self, results: Results, store: Store, command: str) -> None:
        """Write everything that the run found.

        Raises:
            GradbenchError: if the folder cannot be written, or has become that of another run
                meanwhile; what was there before stays.
        """
        try:
            with claim.locked(self.path), step(f"writing results to {printable(self.path)}"):
                if (self._part / NAME).is_file():  # whole, of a call that was killed moving it
                    claim.place(self.path)
                try:
                    dropped = self._write(results, store, command)
                    claim.place(self.path)
                finally:
                    if not (self._part / NAME).is_file():
                        shutil.rmtree(self._part, ignore_errors=True)
        except OSError as fault:
            raise self._refused(fault.strerror or str(fault)) from fault
        except SafetensorError as fault:  # safetensors' word for a full disk
            raise self._refused(str(fault)) from fault

        if dropped:
            say(
                f"{printable(self.path)}: no longer holds {'; '.join(dropped)}, as a former call "
                "did"
            )

    def _write(self, results: Results, store: Store, command: str) -> list[str]:
        """Write all beside its place; return what `claim.check` does."""
        detectors = {name: costliest(results, name) for name in results.experiment.detectors}
        about = describe(results, command, detectors)
        rows = results.frame()
        part = self._part
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        write_csv(rows, part / "results.csv")
        write_costs(store, part / "costs.csv", detectors)
        text = costs_table(store, detectors)
        (part / "costs.md").write_text(text, encoding="utf-8")
        (part / "table.md").write_text(table.markdown(rows, about), encoding="utf-8")
        (part / "figures").mkdir()
        with step("drawing figures"):
            _draw(results, rows, part / "figures")
        write_models(results, part / "model")
        made = (path for path in sorted(part.rglob("*")) if path.is_file())
        files = listed(part, [path.relative_to(part).as_posix() for path in made])
        dropped = claim.check(self.path, self._config, files)
        write_told(part, self._provenance(results, store, about) | {"files": files})
        return dropped

    @property
    def _part(self) -> Path:
        return self.path / PART

    def _provenance(self, results: Results, store: Store, about: dict[str, Any]) -> dict[str, Any]:
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

    def _refused(self, reason: str) -> GradbenchError:
        return GradbenchError(
            f"the results cannot be written to {self.path} ({reason}): make room "
            "or rights there, or name another folder with out=DIR; products in the store are kept"
        )


def terminal(folder: Path) -> str:
    """Return the main table of a finished run as text, and where the rest is.

    Raises:
        GradbenchError: if the folder holds no finished run, or a file is broken off or edited.
    """
    run = Finished(folder)
    text = table.terminal(run.frame, run.told["about"])
    all_tables, pictures = (printable(run.path / name) for name in ("table.md", "figures"))
    return f"{text}\n\nall tables: {all_tables}, pictures: {pictures}"


def describe(results: Results, command: str, fitted: Detectors) -> dict[str, Any]:
    """Return what a table must say besides its numbers, JSON-able.

    Args:
        results: of the run.
        command: that started it.
        fitted: its detectors, see `costliest`.
    """
    experiment = results.experiment
    backbone = experiment.config["backbone"]
    detectors = {name: experiment.detector(name) for name in experiment.detectors}
    return {
        "experiment": experiment.name,
        "in_dist": experiment.dataset.name,
        "backbone": backbone["name"],
        "width": backbone.get("width"),
        "accuracy": {str(seed): value for seed, value in results.accuracy.items()},
        "n_accuracy": len(results.images.normal),
        "n_clean": len(results.images.normal),
        "hold_out": results.hold_out,
        "protocol": protocol_name(experiment.protocol),
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


def _draw(results: Results, rows, folder: Path) -> None:
    """Draw the pictures of every network; of many cells, some levels of every challenge."""
    in_dist = results.experiment.dataset.name
    view = View(rows, protocol_name(results.experiment.protocol))
    drawn = {name for curves in results.curves.values() for own in curves.values() for name in own}
    named = [name for name in view.methods(results.experiment.detectors) if name in drawn]
    methods, of = selection.detectors(view, named)
    for seed, curves in results.curves.items():
        end = "" if len(results.curves) == 1 else f"_s{seed}"
        shown, which = selection.panels(results.experiment.cells, curves)
        if shown:
            title = f"ROC: {in_dist} in{which}{of}"
            lines = {one: _of(curves[one], methods) for one in shown}
            figures.roc(folder / f"roc{end}.png", title, lines)
        for method in results.experiment.detectors:
            titles = [title for title in shown if method in curves[title]]
            if titles:
                name = file_name(method)
                title = f"Scores of {method}: {in_dist} in{which}"
                scores = OnDemand()
                for one in titles:
                    scores.add(one, partial(curves[one].__getitem__, method))
                figures.histograms(folder / f"scores_{name}{end}.png", title, scores)
        means = results.profiles[seed]
        if means:
            names = [n for n, _ in results.networks[seed].backbone.network.named_parameters()]
            shown, which = selection.lines(results.experiment.cells, means)
            title = f"Mean squared gradient norm of every parameter tensor{which}"
            kept = {name: means[name] for name in shown}
            figures.profile(folder / f"gradient_profile{end}.png", title, names, kept)
    found = rows[rows["value"].notna()]
    if results.curves and found["level"].nunique() > 2:  # none, and more than one point on a curve
        title = f"AUROC against level: {in_dist} in{of}"
        figures.levels(folder / "levels.png", title, found[found["method"].isin(methods)])


def _of(curves: OnDemand, methods: Sequence[str]) -> OnDemand:
    """Return the curves of some methods, read from the store when they are wanted."""
    kept = OnDemand()
    for method in methods:
        if method in curves:
            kept.add(method, partial(curves.__getitem__, method))
    return kept
