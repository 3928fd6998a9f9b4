"""Keeps the trained networks of a run under results/weights/, in bfloat16.

    python scripts/keep_weights.py RUN

Writes <backbone>-<dataset>-w<width>-s<seed>.safetensors for every network of the run's folder (no
w<width> for a backbone without width), with its recipe, accuracy, command and the fingerprints of
the images that it was trained on inside, and lists the SHA-256 sums in SHA256SUMS.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from gradbench.backbones.checkpoint import read_checkpoint
from gradbench.backbones.trained_network import trained_fingerprints
from gradbench.store import file_digest
from gradbench.support.tensors import save_tensors

WEIGHTS = Path(__file__).parent.parent / "results" / "weights"


def keep(run: Path, folder: Path = WEIGHTS) -> list[Path]:
    """Write the networks of a run and return their files."""
    told = json.loads((run / "run.json").read_text())
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for model in sorted((run / "model").iterdir()):
        about = json.loads((model / "model.json").read_text())
        seed = int(model.name.removeprefix("s"))
        width = [f"w{told['about']['width']}"] if told["about"]["width"] else []
        parts = [told["about"]["backbone"], about["in_dist"], *width, f"s{seed}"]
        name = f"{'-'.join(parts)}.safetensors"
        tensors = load_file(str(model / "network.safetensors"))
        note = {
            "network": about["network"],
            "classes": about["classes"],
            "mean": about["mean"],
            "std": about["std"],
            "trained_on": trained_fingerprints(read_checkpoint(model / "network.safetensors")[1]),
            "training": told["config"]["training"],
            "seed": seed,
            "test_accuracy_before_rounding": about["accuracy"],
            "command": told["about"]["command"],
            "versions": told["versions"],
        }
        metadata = {"gradbench": json.dumps(note, sort_keys=True)}
        save_tensors(tensors, folder / name, metadata, torch.bfloat16)
        written.append(folder / name)
    sums = [f"{file_digest(p)}  {p.name}\n" for p in sorted(folder.glob("*.safetensors"))]
    (folder / "SHA256SUMS").write_text("".join(sums))
    return written


if __name__ == "__main__":
    if len(sys.argv) != 2 or not (Path(sys.argv[1]) / "run.json").is_file():
        sys.exit(__doc__)
    for path in keep(Path(sys.argv[1])):
        print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB")
