"""The folder `model/` of a run: each network with its fitted detectors, nothing that executes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gradbench import __version__
from gradbench.backbones.backbone import defining_classes
from gradbench.backbones.checkpoint import save_checkpoint
from gradbench.data.picture import Resampling
from gradbench.outputs.catalogue import built_in
from gradbench.run.evaluate import KEPT
from gradbench.run.experiment import Experiment
from gradbench.run.fitting import learns
from gradbench.run.results import Results
from gradbench.store import file_digest
from gradbench.support.code_keys import UNREAD, code_key
from gradbench.support.instantiate import imported_targets
from gradbench.support.progress import say
from gradbench.support.tensors import save_tensors
from gradbench.support.text import file_name


def write_models(results: Results, folder: Path) -> None:
    """Write `s<seed>/` for every network.

    `network.safetensors` holds the weights, `model.json` all that is needed to build network and
    detectors again and to score new images (see `scoring`): class paths with arguments,
    normalisation, class names, shape and how pictures are brought to it, versions, checksums,
    which detector was fitted on which challenge, and its threshold on the hold-out. Supervised
    detectors are those of the first fold.
    """
    experiment = results.experiment
    for name in experiment.comparing:
        say(f"{name} compares several networks, a folder in model/ holds one: left out of `score`")
    pixels = results.images.normal.images
    for seed, network in results.networks.items():
        here = folder / f"s{seed}"
        (here / "detectors").mkdir(parents=True)
        backbone = network.backbone
        about = {
            "gradbench": __version__,
            "network": backbone.config,
            "mean": backbone.mean.flatten().tolist(),
            "std": backbone.std.flatten().tolist(),
            "classes": list(backbone.classes),
            "shape": list(backbone.shape),
            # of files as the set reads them, else the usual one
            "resampling": asdict(getattr(pixels, "resampling", None) or Resampling()),
            "feature_layers": list(backbone.feature_layers),
            "in_dist": experiment.dataset.name,
            "accuracy": results.accuracy[seed],
            "weights": network.weights,
            "code": code_of(*defining_classes(backbone.network, backbone.config.get("_target_"))),
            "outputs": built_in().versions(),
            "own_outputs": _own_outputs(experiment),
            "learned": _learned(results, seed, here),
            "kept": KEPT,
            "hold_out": results.hold_out,
            "detectors": [_detector(results, key, here) for key in _able(results, seed)],
        }
        described = {k: about[k] for k in ("classes", "mean", "std")} | {"seed": network.seed}
        described["trained_on"] = dict(network.trained_on)
        save_checkpoint(here / "network.safetensors", backbone.network, described)
        about["sha256"] = {
            path.relative_to(here).as_posix(): file_digest(path)
            for path in sorted(here.rglob("*.safetensors"))
        }
        (here / "model.json").write_text(json.dumps(about, indent=1) + "\n")


def _own_outputs(experiment: Experiment) -> dict[str, Any]:
    """Return what is needed to build the outputs of the user's own that detectors read."""
    entries = {}
    for kind, output in experiment.outputs.users_own(experiment.reads).items():
        content = experiment.outputs.content(kind)
        entries[kind] = {
            "config": {k: v for k, v in content.items() if k != "description"},
            "version": output.version,
            "code": code_of(*imported_targets(content["_target_"]), output),
        }
    return entries


def _learned(results: Results, seed: int, here: Path) -> dict[str, str]:
    """Write what the outputs of a network learned, and return the file of each."""
    lessons, files = results.lessons[seed], {}
    wanted = results.experiment.outputs.of_network(lessons.backbone, results.experiment.reads)
    for output in lessons.taught(wanted)[0]:
        if output.learned:
            files[output.name] = f"outputs/{file_name(output.name)}.safetensors"
            (here / "outputs").mkdir(exist_ok=True)
            save_tensors(output.learned, here / files[output.name])
    return files


def _able(results: Results, seed: int) -> Iterator[tuple[int, str, str]]:
    """Yield the keys of a network's detectors that can score: fitted ones, and those without fit.

    Where no challenge was at hand, those that learn from challenges have nothing to score with;
    one from outside that was found to have a fault scores nothing, and those that compare several
    networks have one alone in the folder.
    """
    faulty = {name.partition("@")[0] for name in results.faults}
    if results.experiment.task.predicts != "score":
        return  # new pictures are judged by scores
    for name in results.experiment.detectors:
        if name in (*faulty, *results.experiment.comparing):
            continue
        yield from (key for key in results.states if (key[0], key[2]) == (seed, name))
        detector = results.experiment.detector(name)
        if not (detector.learns_from_challenges or learns(detector)):
            yield seed, "", name


def _detector(results: Results, key: tuple[int, str, str], here: Path) -> dict[str, Any]:
    """Write the fitted state of a detector and return what is told of it."""
    _, title, name = key
    experiment = results.experiment
    detector = experiment.detector(name)
    column = f"{name}@{title}" if title else name
    threshold = results.thresholds.get(key)
    state = results.states.get(key)
    place = "" if state is None else f"detectors/{file_name(column)}.safetensors"
    if place:
        save_tensors(state, here / place)
    return {
        "name": name,
        "column": column,
        "config": {k: v for k, v in experiment.detectors[name].items() if k != "description"},
        "version": detector.version,
        "code": code_of(*imported_targets(experiment.detectors[name]["_target_"]), detector),
        "supervision": detector.supervision,
        "fitted_on": title,
        "state": place,
        "threshold": None if threshold is None else asdict(threshold),
    }


def code_of(*things: Any) -> str:
    """Return the digest of the source of what is not gradbench's, "" where all is or it has none.

    A class that was edited since would not judge as it did in the run.
    """
    code = code_key(*things).get("code", "")
    return "" if code.startswith(UNREAD) else code
