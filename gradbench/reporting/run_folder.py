"""The folder that a run leaves: rows, costs, table, figures, provenance, model."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from gradbench.config import shadows
from gradbench.errors import GradbenchError
from gradbench.evaluation.rows import read_csv, write_csv
from gradbench.reporting import figures, provenance, selection, table
from gradbench.reporting.costs import Detectors, costs_table, write_costs
from gradbench.reporting.model_folder import write_models
from gradbench.reporting.view import View
from gradbench.run.experiment import protocol_name
from gradbench.run.pass_times import costliest
from gradbench.run.results import Results
from gradbench.store import Store
from gradbench.support.names import file_name
from gradbench.support.on_demand import OnDemand


class RunFolder:
    """Where a run writes; everything is written beside its place and moved there when whole.

    Args:
        path: the folder, made if it is not there.

    Raises:
        GradbenchError: if it cannot be written.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        self.begun = time.time()
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

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Return the folder of a finished run, to read."""
        folder = cls.__new__(cls)
        folder.path = Path(path)
        return folder

    def write(self, results: Results, store: Store, command: str) -> None:
        """Write everything that the run found.

        Raises:
            GradbenchError: if the folder cannot be written; what was there before stays.
        """
        place = hashlib.sha256(str(self.path.resolve()).encode()).hexdigest()[:40]
        with store.lock(f"results-{place}", f"the results in {self.path}"):
            try:
                self._write(results, store, command)
            except OSError as fault:
                raise self._refused(fault.strerror or str(fault)) from fault
            except SafetensorError as fault:  # safetensors' word for a full disk
                raise self._refused(str(fault)) from fault
            finally:
                shutil.rmtree(self._part, ignore_errors=True)

    def _write(self, results: Results, store: Store, command: str) -> None:
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
        _draw(results, rows, part / "figures")
        write_models(results, part / "model")
        told = self._provenance(results, store, about)
        (part / "run.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        for item in sorted(part.iterdir()):
            place = self.path / item.name
            if place.is_dir():
                shutil.rmtree(place)
            os.replace(item, place)

    def terminal(self) -> str:
        """Return the main table as text, and where the rest is.

        Raises:
            GradbenchError: if the folder holds no finished run.
        """
        try:
            about = json.loads((self.path / "run.json").read_text())["about"]
        except (OSError, ValueError, KeyError) as fault:
            raise GradbenchError(f"{self.path} holds no finished run: {fault}") from fault
        text = table.terminal(read_csv(self.path / "results.csv"), about)
        return f"{text}\n\nall tables: {self.path / 'table.md'}, pictures: {self.path / 'figures'}"

    @property
    def _part(self) -> Path:
        return self.path / ".part"

    def _provenance(self, results: Results, store: Store, about: dict[str, Any]) -> dict[str, Any]:
        return {
            "about": about,
            "config": dict(results.experiment.config),
            "versions": provenance.versions(),
            "code": provenance.code(),
            "hardware": provenance.hardware(results.experiment.device),
            "data": results.sets,
            "networks": {
                seed: {"accuracy": f.accuracy, "weights": f.weights, "origin": f.origin}
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
        "accuracy": {str(seed): f.accuracy for seed, f in results.networks.items()},
        "n_clean": len(results.images.normal),
        "protocol": protocol_name(experiment.protocol),
        "told": experiment.protocol.told,
        "left_out": dict(experiment.left_out),
        "detectors": {
            name: {
                "supervision": detector.supervision,
                "clean_seen": detector.clean_seen,
                "reads": list(detector.reads),
                "passes": str(fitted[name].passes) if fitted[name] else "",
            }
            for name, detector in detectors.items()
        },
        "remark": experiment.config["remark"],
        "shadows": shadows(experiment.dirs),
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
    if results.curves and rows["level"].nunique() > 2:  # "", and more than one point on a curve
        title = f"AUROC against level: {in_dist} in{of}"
        figures.levels(folder / "levels.png", title, rows[rows["method"].isin(methods)])


def _of(curves: OnDemand, methods: Sequence[str]) -> OnDemand:
    """Return the curves of some methods, read from the store when they are wanted."""
    kept = OnDemand()
    for method in methods:
        if method in curves:
            kept.add(method, partial(curves.__getitem__, method))
    return kept
