"""The folder `model/` of a run: each network with its fitted detectors, nothing that executes."""

from __future__ import annotations

import json
import re
from pathlib import Path

from safetensors.torch import save_file

from gradbench.backbones import checkpoint
from gradbench.results import Results


def write_models(results: Results, folder: Path) -> None:
    """Write `s<seed>/` for every network.

    `network.safetensors` holds the weights, `model.json` all that is needed to build network and
    detectors again: class paths with arguments, normalisation, class names, shape, and which
    detector was fitted on which challenge. Supervised detectors are those of the first fold.
    """
    experiment = results.experiment
    for seed, network in results.networks.items():
        here = folder / f"s{seed}"
        (here / "detectors").mkdir(parents=True)
        backbone = network.backbone
        about = {
            "network": backbone.config,
            "mean": backbone.mean.flatten().tolist(),
            "std": backbone.std.flatten().tolist(),
            "classes": list(backbone.classes),
            "shape": list(backbone.shape),
            "feature_layers": list(backbone.feature_layers),
            "in_dist": experiment.dataset.name,
            "accuracy": network.accuracy,
            "weights": network.weights,
            "detectors": [],
        }
        for name, content in experiment.detectors.items():
            titles = [title for at, title, of in results.states if (at, of) == (seed, name)]
            for title in titles or [""]:
                key = seed, title, name
                state = results.states.get(key)
                entry = {
                    "name": name,
                    "config": {k: v for k, v in content.items() if k != "description"},
                    "supervision": experiment.detector(name).supervision,
                    "fitted_on": title,
                    "state": "",
                }
                if state is not None:
                    entry["state"] = (
                        f"detectors/{_file_name(f'{name}@{title}' if title else name)}.safetensors"
                    )
                    save_file({n: t.contiguous() for n, t in state.items()},
                              str(here / entry["state"]))  # fmt: skip
                about["detectors"].append(entry)
        described = {k: about[k] for k in ("classes", "mean", "std")} | {"seed": network.seed}
        checkpoint.save(here / "network.safetensors", backbone.network, described)
        (here / "model.json").write_text(json.dumps(about, indent=1) + "\n")


def _file_name(text: str) -> str:
    return re.sub(r"[^\w@.-]+", "_", text)
