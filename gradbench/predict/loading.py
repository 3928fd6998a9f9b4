"""Reads the folder `model/` of a run: network and detectors as data, nothing that executes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
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
from gradbench.predict import trust
from gradbench.predict.model_json import ANEW, damaged
from gradbench.store import file_digest
from gradbench.support.code_keys import code_key
from gradbench.support.instantiate import imported_targets, instantiate

DAMAGES = (KeyError, IndexError, AttributeError, TypeError, ValueError, RuntimeError)
"""What a detector raises on tensors that are not its own."""


@dataclass(frozen=True)
class Kept:
    """One network of a finished run, as its folder tells of it.

    Attributes:
        folder: `RUN/model/s<seed>`.
        about: content of `model.json`.
        trusted: modules beside gradbench's and torchvision's whose classes are built.
    """

    folder: Path
    about: Mapping[str, Any]
    trusted: tuple[str, ...] = ()

    @property
    def entries(self) -> dict[str, Mapping[str, Any]]:
        """What is told of every detector, by the name of its column."""
        return {entry["column"]: entry for entry in self.about["detectors"]}

    def backbone(self, device: torch.device) -> Backbone:
        """Build the network and load its weights; it is in evaluation mode.

        Raises:
            GradbenchError: if its class is not trusted, its file is damaged, or it is no classifier
                of these images into these classes.
        """
        about, config = self.about, dict(self.about["network"])
        trust.check(config["_target_"], nn.Module, self.trusted)
        path = self._whole("network.safetensors")
        with self._somebodys("network", f"the arguments of {config['_target_']}"):
            network = build_network(trust.without_downloads(config))
        target = config["_target_"]
        self._same_code(target, about.get("code"), *defining_classes(network, target))
        load_checkpoint(network, path)
        told = (about[name] for name in ("mean", "std", "classes", "shape"))
        backbone = Backbone(network, *told, config, about["feature_layers"] or None)
        backbone = backbone.eval().to(device)
        with self._somebodys("shape", "the shape that the network takes"), torch.no_grad():
            logits = backbone(torch.zeros(1, *backbone.shape, device=device))
        if not torch.is_tensor(logits) or logits.ndim != 2:
            raise GradbenchError(f"{printable(self.folder)}: {config['_target_']} is no classifier")
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
        trust.check(entry["config"].get("_target_"), Detector, self.trusted)
        with self._somebodys(f"detectors {column}", "its settings"):
            detector = instantiate("detector", entry["name"], entry["config"])
        if not isinstance(detector, Detector):
            raise GradbenchError(f"{entry['config']['_target_']} gives no detector")
        _same_version(column, entry["version"], detector.version, self.folder)
        for name in detector.reads:
            self._check_output(name)
        check_declared(entry["name"], detector, self.outputs)
        target = entry["config"]["_target_"]
        self._same_code(target, entry.get("code"), *imported_targets(target), detector)
        detector = checked(entry["name"], detector)
        if not entry["state"]:
            return detector
        path = self._whole(entry["state"])
        try:
            detector.load(load_file(str(path)))
        except (*DAMAGES, SafetensorError, OSError) as fault:
            raise GradbenchError(
                f"{printable(path)} does not fit {column} ({brief(fault)}): {ANEW}"
            ) from fault
        for name in detector.reads:
            self._check_output(name)
        return detector

    @cached_property
    def outputs(self) -> OutputCatalogue:
        """The outputs that detectors read, the run's own among them if they are trusted."""
        own = self.about.get("own_outputs", {})
        return OutputCatalogue(members={kind: entry["config"] for kind, entry in own.items()})

    def _check_output(self, name: str) -> None:
        kind = name.partition("/")[0]
        entry = self.about.get("own_outputs", {}).get(kind)
        if entry is None:
            kept = self.about["outputs"].get(kind)
        else:
            kept, target = entry["version"], entry["config"]["_target_"]
            trust.check(target, Output, self.trusted)
            self._same_code(target, entry.get("code"), *imported_targets(target))
        _same_version(f"output {kind}", kept, self.outputs.find(name).version, self.folder)

    def _same_code(self, target: str, code: str | None, *things: Any) -> None:
        """Refuse a class from outside that was edited since the run: it would judge otherwise."""
        if code and code != code_key(*things).get("code"):
            raise GradbenchError(
                f"{printable(self.folder)}: the code of {printable(target)} is another than in the "
                "run: carry out the run's command again"
            )

    def _whole(self, name: str) -> Path:
        """Return the path of a file whose content is that of the run.

        Raises:
            GradbenchError: if it is missing or damaged.
        """
        path = self.folder / name
        listed = self.about["sha256"].get(name)
        if listed is None or not os.path.isfile(path):
            raise GradbenchError(f"{printable(path)} is missing: {ANEW}")
        try:
            same = file_digest(path) == listed
        except OSError as fault:
            raise GradbenchError(f"{printable(path)} cannot be read ({fault.strerror})") from fault
        if not same:
            raise GradbenchError(
                f"{printable(path)} is damaged (its SHA-256 is not that of the run): {ANEW}"
            )
        return path

    @contextmanager
    def _somebodys(self, field: str, what: str) -> Iterator[None]:
        """Tell which field is at fault where a class meets what it cannot work with."""
        try:
            yield
        except GradbenchError:
            raise
        except Exception as fault:  # a class may answer foreign settings with any
            raise damaged(
                self.folder / "model.json", f"{field} must be {what} ({brief(fault)})"
            ) from fault


def brief(fault: BaseException) -> str:
    """Return the text of an exception on one line, or else its kind."""
    return printable(" ".join(str(fault).split()))[:120] or type(fault).__name__


def _same_version(what: str, kept: int | None, own: int, folder: Path) -> None:
    if kept != own:
        raise GradbenchError(
            f"{printable(folder)}: {what} is of version {kept}, this gradbench has {own}: use the "
            "gradbench that made the run, or carry out the run's command again"
        )
