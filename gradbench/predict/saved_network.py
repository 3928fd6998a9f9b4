"""Opens a network of a finished run with its detectors: data alone, nothing that executes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from gradbench.backbones.backbone import Backbone, defining_classes
from gradbench.backbones.build import build_network
from gradbench.backbones.checkpoint import load_checkpoint
from gradbench.errors import GradbenchError, printable
from gradbench.methods.base import Detector
from gradbench.methods.checked import check_declared, checked
from gradbench.outputs.base import Output
from gradbench.outputs.catalogue import OutputCatalogue
from gradbench.outputs.learned import with_learned
from gradbench.predict import trust
from gradbench.predict.model_json import HOW_TO_REPAIR, damaged, read_model_json
from gradbench.report.finished_run import RUN_JSON, FinishedRun
from gradbench.store import file_digest
from gradbench.support.code_keys import code_key
from gradbench.support.instantiate import imported_targets, instantiate
from gradbench.support.text import expand_home

WRONG_STATE = (KeyError, IndexError, AttributeError, TypeError, ValueError, RuntimeError)
"""Exceptions of a detector for tensors that are not its own."""


@dataclass(frozen=True)
class SavedNetwork:
    """One network of a finished run: its folder `RUN/model/s<seed>` and the `model.json` there.

    `trusted` are modules beside gradbench's and torchvision's whose classes are built.
    """

    folder: Path
    about: Mapping[str, Any]
    trusted: tuple[str, ...] = ()

    @property
    def entries(self) -> dict[str, Mapping[str, Any]]:
        """The entry of every detector, by the name of its column."""
        return {entry["column"]: entry for entry in self.about["detectors"]}

    def backbone(self, device: torch.device) -> Backbone:
        """Build the network and load its weights; it is in evaluation mode.

        Raises:
            GradbenchError: if its class is not trusted, its file is damaged, or it is no classifier
                of these images into these classes.
        """
        about, config = self.about, dict(self.about["network"])
        target = config["_target_"]
        trust.check(target, nn.Module, self.trusted)
        path = self._checked_path("network.safetensors")
        with self._blame_field("network", f"the arguments of {target}"):
            network = build_network(trust.without_downloads(config))
        self._check_code(target, about.get("code"), *defining_classes(network, target))
        load_checkpoint(network, path)
        fields = (about[name] for name in ("mean", "std", "classes", "shape"))
        backbone = Backbone(network, *fields, config, about["feature_layers"] or None)
        backbone = backbone.eval().to(device)
        with self._blame_field("shape", "the shape that the network takes"), torch.no_grad():
            logits = backbone(torch.zeros(1, *backbone.shape, device=device))
        if logits.ndim != 2:
            raise GradbenchError(f"{printable(self.folder)}: {target} is no classifier")
        if logits.shape[1] != len(backbone.classes):
            raise damaged(
                self.folder / "model.json",
                f"classes must be {logits.shape[1]} names, as many as the network tells apart",
            )
        return backbone

    def detector(self, column: str) -> Detector:
        """Build a detector and give it what it learned.

        Raises:
            GradbenchError: if its class is not trusted, its file is damaged, or this gradbench
                has another version of it.
        """
        entry = self.entries[column]
        target = entry["config"]["_target_"]
        trust.check(target, Detector, self.trusted)
        with self._blame_field(f"detectors {column}", "its settings"):
            detector = instantiate("detector", entry["name"], entry["config"])
        if not isinstance(detector, Detector):
            raise GradbenchError(f"{target} gives no detector")
        self._check_version(column, entry["version"], detector.version)
        for name in detector.reads:
            self._check_output(name)
        check_declared(entry["name"], detector, self.outputs)
        self._check_code(target, entry.get("code"), *imported_targets(target), detector)
        detector = checked(entry["name"], detector)
        if not entry["state"]:
            return detector
        path = self._checked_path(entry["state"])
        try:
            detector.load(load_file(str(path)))
        except (*WRONG_STATE, SafetensorError, OSError) as fault:
            raise GradbenchError(
                f"{printable(path)} does not fit {column} ({first_line(fault)}): {HOW_TO_REPAIR}"
            ) from fault
        for name in detector.reads:  # which may depend on what it learned
            self._check_output(name)
        return detector

    @cached_property
    def outputs(self) -> OutputCatalogue:
        """The outputs, the run's own among them: all must be trusted, read or not."""
        configs = {kind: e["config"] for kind, e in self.about.get("own_outputs", {}).items()}
        for config in configs.values():
            trust.check(config["_target_"], Output, self.trusted)
        return OutputCatalogue(members=configs)

    def taught(self, output: Output) -> Output:
        """Return an output with what it learned in the run, if it learns.

        Raises:
            GradbenchError: if its file is damaged, or missing.
        """
        if not output.learns_from:
            return output
        place = self.about.get("learned", {}).get(output.name)
        if place is None:
            raise damaged(self.folder / "model.json", f"learned must name a file of {output.name}")
        path = self._checked_path(place)
        try:
            return with_learned(output, load_file(str(path)), "")
        except (SafetensorError, OSError) as fault:
            raise GradbenchError(
                f"{printable(path)} does not fit {output.name} ({first_line(fault)}): "
                f"{HOW_TO_REPAIR}"
            ) from fault

    def _check_output(self, name: str) -> None:
        kind = name.partition("/")[0]
        outputs, version = self.outputs, self.about["outputs"].get(kind)
        if entry := self.about.get("own_outputs", {}).get(kind):
            version, target = entry["version"], entry["config"]["_target_"]
            self._check_code(target, entry.get("code"), *imported_targets(target))
        self._check_version(f"output {kind}", version, outputs.find(name).version)
        if kind == "mirrored":
            self._check_output(name.removeprefix("mirrored/"))

    def _check_code(self, target: str, code: str | None, *things: Any) -> None:
        """Refuse a class from outside that was edited since the run: it would judge otherwise."""
        if code and code != code_key(*things).get("code"):
            raise GradbenchError(
                f"{printable(self.folder)}: the code of {printable(target)} is another than in the "
                "run: carry out the run's command again"
            )

    def _check_version(self, thing: str, version: int | None, own: int) -> None:
        if version != own:
            raise GradbenchError(
                f"{printable(self.folder)}: {thing} is of version {version}, this gradbench has "
                f"{own}: use the gradbench that made the run, or carry out the run's command again"
            )

    def _checked_path(self, name: str) -> Path:
        """Return the path of a file, refused unless its content is that of the run."""
        path, listed = self.folder / name, self.about["sha256"].get(name)
        if listed is None or not os.path.isfile(path):
            raise GradbenchError(f"{printable(path)} is missing: {HOW_TO_REPAIR}")
        try:
            same = file_digest(path) == listed
        except OSError as fault:
            raise GradbenchError(f"{printable(path)} cannot be read ({fault.strerror})") from fault
        if not same:
            raise GradbenchError(
                f"{printable(path)} is damaged (its SHA-256 is not that of the run): "
                f"{HOW_TO_REPAIR}"
            )
        return path

    @contextmanager
    def _blame_field(self, field: str, due: str) -> Iterator[None]:
        """Name the field at fault where a class meets what it cannot work with."""
        try:
            yield
        except GradbenchError:
            raise
        except Exception as fault:  # a class may answer foreign settings with any
            raise damaged(
                self.folder / "model.json", f"{field} must be {due} ({first_line(fault)})"
            ) from fault


def first_line(fault: BaseException) -> str:
    """Return the text of an exception on one line, or else its kind."""
    return printable(" ".join(str(fault).split()))[:120] or type(fault).__name__


def open_run(run: str | Path, seed: int | None = None, trusted: Iterable[str] = ()) -> SavedNetwork:
    """Open a network of a finished run; for the arguments see `run_scorer.load`.

    Raises:
        GradbenchError: if there is no such run, or it has no whole `model/`.
    """
    folders = [place for place in (expand_home(run), Path("outputs", run)) if os.path.isdir(place)]
    if not folders:
        raise GradbenchError(
            f"there is no run at {printable(run)}: name the folder of a finished run"
        )
    folder = folders[0]
    seeds = [p.parent.name[1:] for p in folder.glob("model/s*/model.json") if os.path.isfile(p)]
    if not seeds:
        raise GradbenchError(
            f"{printable(folder)} has no model/ with a network: name the folder of a finished run "
            "(out=DIR of `gradbench run`; of a sweep one of its jobs)"
        )
    seeds.sort(key=lambda text: (len(text), text))
    chosen = seeds[0] if seed is None else str(seed)
    if chosen not in seeds:
        raise GradbenchError(
            f"{printable(folder)} has no network of seed {printable(chosen)}: "
            f"{printable(', '.join(seeds))}"
        )
    name = f"model/s{chosen}/model.json"
    # a model/ that was copied without the run's run.json holds its own checksums
    recorded = os.path.lexists(folder / RUN_JSON)
    about = read_model_json(FinishedRun(folder).file(name) if recorded else folder / name)
    trusted = (trusted,) if isinstance(trusted, str) else tuple(trusted)
    return SavedNetwork(folder / f"model/s{chosen}", about, trusted)
