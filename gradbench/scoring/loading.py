"""Reads the folder `model/` of a run: network and detectors as data, nothing that executes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from gradbench.backbones import checkpoint
from gradbench.backbones.backbone import Backbone
from gradbench.backbones.build import build_network
from gradbench.detectors.base import Detector
from gradbench.errors import GradbenchError
from gradbench.extraction.readers import VERSIONS
from gradbench.run.experiment import instantiate
from gradbench.scoring import trust
from gradbench.store import file_digest

NEEDED = (
    *("network", "mean", "std", "classes", "shape", "resampling", "feature_layers"),
    *("outputs", "kept", "detectors", "sha256"),
)
"""What `model.json` must tell."""
OF_DETECTOR = (
    *("name", "column", "config", "version", "supervision", "fitted_on", "state", "threshold"),
)
"""What it must tell of each detector."""
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

    def backbone(self) -> Backbone:
        """Build the network and load its weights; it is in evaluation mode, on the CPU.

        Raises:
            GradbenchError: if its class is not trusted, or its file is damaged.
        """
        config = dict(self.about["network"])
        trust.check(config.get("_target_"), nn.Module, self.trusted)
        path = self._whole("network.safetensors")
        network = build_network(trust.without_downloads(config))
        checkpoint.load_into(network, path)
        told = (self.about[name] for name in ("mean", "std", "classes", "shape"))
        return Backbone(network, *told, config, self.about["feature_layers"] or None).eval()

    def detector(self, column: str) -> Detector:
        """Build a detector and give it what it learned.

        Raises:
            GradbenchError: if its class is not trusted, its file is damaged, or this gradbench
                has another version of it.
        """
        entry = self.entries[column]
        trust.check(entry["config"].get("_target_"), Detector, self.trusted)
        detector = instantiate("detector", entry["name"], entry["config"])
        if not isinstance(detector, Detector):
            raise GradbenchError(f"{entry['config']['_target_']} gives no detector")
        _same_version(column, entry["version"], detector.version, self.folder)
        if not entry["state"]:
            return detector
        path = self._whole(entry["state"])
        try:
            detector.load(load_file(str(path)))
        except (*DAMAGES, SafetensorError, OSError) as fault:
            reason = " ".join(str(fault).split())[:120]
            raise GradbenchError(f"{path} does not fit {column} ({reason}): {_ANEW}") from fault
        for name in detector.reads:
            kind = name.split("/")[0]
            _same_version(f"output {kind}", self.about["outputs"].get(kind), VERSIONS[kind],
                          self.folder)  # fmt: skip
        return detector

    def _whole(self, name: str) -> Path:
        """Return the path of a file whose content is that of the run.

        Raises:
            GradbenchError: if it is missing or damaged.
        """
        path = self.folder / name
        listed = self.about["sha256"].get(name)
        if listed is None or not path.is_file():
            raise GradbenchError(f"{path} is missing: {_ANEW}")
        if file_digest(path) != listed:
            raise GradbenchError(f"{path} is damaged (its SHA-256 is not that of the run): {_ANEW}")
        return path


_ANEW = "copy the run's folder again, or carry out its command (in table.md), which writes it anew"


def open_run(run: str | Path, seed: int | None = None, trusted: Sequence[str] = ()) -> Kept:
    """Open a network of a finished run.

    Args:
        run: the run's folder, or its name under `outputs/`.
        seed: which network, of several; None for the first.
        trusted: see `Kept`.

    Raises:
        GradbenchError: if there is no such run, or it has no whole `model/`.
    """
    folder = _folder(run)
    found = {path.parent.name[1:]: path.parent for path in folder.glob("model/s*/model.json")}
    if not found:
        raise GradbenchError(
            f"{folder} has no model/ with a network: name the folder of a finished run (out=DIR of "
            "`gradbench run`; of a sweep one of its jobs)"
        )
    seeds = sorted(found, key=lambda text: (len(text), text))
    chosen = seeds[0] if seed is None else str(seed)
    if chosen not in found:
        raise GradbenchError(f"{folder} has no network of seed {chosen}: {', '.join(seeds)}")
    here = found[chosen]
    try:
        about = json.loads((here / "model.json").read_text())
        missing = [name for name in NEEDED if name not in about]
        for entry in about.get("detectors", []):
            missing += [f"detectors.{name}" for name in OF_DETECTOR if name not in entry]
    except (OSError, ValueError, TypeError, AttributeError) as fault:
        raise GradbenchError(f"{here / 'model.json'} cannot be read ({fault}): {_ANEW}") from fault
    if missing:
        raise GradbenchError(
            f"{here / 'model.json'} says nothing of {', '.join(dict.fromkeys(missing))}, as "
            f"those of an older gradbench do: {_ANEW}"
        )
    return Kept(here, about, (trusted,) if isinstance(trusted, str) else tuple(trusted))


def _folder(run: str | Path) -> Path:
    for folder in (Path(run).expanduser(), Path("outputs") / run):
        if folder.is_dir():
            return folder
    raise GradbenchError(f"there is no run at {run}: name the folder of a finished run")


def _same_version(what: str, kept: int | None, own: int, folder: Path) -> None:
    if kept != own:
        raise GradbenchError(
            f"{folder}: {what} is of version {kept}, this gradbench has {own}: use the gradbench "
            "that made the run, or carry out the run's command again"
        )
