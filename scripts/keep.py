"""Keeps a finished run under results/, or its trained networks under results/weights/.

    python scripts/keep.py run FOLDER [NAME] [--also figures/levels.png costs.md ...]
    python scripts/keep.py weights FOLDER
    python scripts/keep.py tables

`run` writes results/NAME (default: the name of the folder): the rows compressed without a time, so
that equal rows give equal bytes, table.md, run.json, the files of --also (pictures with a palette
of 64 colours), and the run's settings as results/commands/experiment/results_NAME.yaml, which
`gradbench run --config-dir results/commands experiment=results_NAME` takes. `weights` writes
<backbone>-<dataset>-w<width>-s<seed>.safetensors in bfloat16 (no w<width> for a backbone without
width) and SHA256SUMS. `tables` writes table.md of every kept run anew from its rows.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import yaml

from gradbench.config import compose
from gradbench.report.finished_run import seal
from gradbench.run.rows import FILES, read_csv, rows_file, write_csv
from gradbench.store import file_digest

RESULTS = Path(__file__).resolve().parents[1] / "results"
ALWAYS = ("table.md", "run.json")
COLOURS = 64
GROUPS = ("dataset", "backbone", "protocol")
OF_A_MACHINE = ("out", "store", "device", "devices", "remark")
"""Settings that say where and on what a run was made, not what it measures."""


def keep_run(folder: Path, name: str, also: list[str], results: Path = RESULTS) -> Path:
    """Keep a finished run and return its folder."""
    target = results / name
    target.mkdir(parents=True, exist_ok=True)
    write_csv(read_csv(rows_file(folder)), target / FILES[1])
    for file in [*ALWAYS, *also]:
        (target / file).parent.mkdir(exist_ok=True)
        if file.endswith(".png"):
            from PIL import Image

            with Image.open(folder / file) as picture:
                palette = picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
            palette.save(target / file, optimize=True)
        else:
            shutil.copyfile(folder / file, target / file)
    seal(target)
    config = json.loads((folder / "run.json").read_text(encoding="utf-8"))["config"]
    # not NAME alone: Hydra takes gradbench's own experiment of that name instead
    command = results / "commands" / "experiment" / f"results_{name}.yaml"
    command.parent.mkdir(parents=True, exist_ok=True)
    command.write_text(command_file(config), encoding="utf-8")
    return target


def command_file(config: dict[str, Any]) -> str:
    """Return an experiment's file with everything in which a run's settings are not the usual."""
    members = {group: config[group]["name"] for group in GROUPS}
    usual = compose([f"{group}={member}" for group, member in members.items()])
    own = {key: value for key, value in config.items() if key not in (*OF_A_MACHINE, "dataset")}
    content = {
        "defaults": [{f"override /{group}": member} for group, member in members.items()],
        **_differences(own, usual),
    }
    return "# @package _global_\n" + yaml.safe_dump(
        content, sort_keys=False, default_flow_style=None, width=98
    )


def _differences(own: dict[str, Any], usual: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that differ; those that no longer exist are left out."""
    differences = {}
    for key, value in own.items():
        if key in ("_target_", "root", "workers") or key not in usual or value == usual[key]:
            continue
        if isinstance(value, dict) and isinstance(usual[key], dict):
            value = _differences(value, usual[key])
            if not value:
                continue
        differences[key] = value
    return differences


def keep_weights(folder: Path, weights: Path = RESULTS / "weights") -> list[Path]:
    """Keep the networks of a run with what is known of them, and return their files."""
    import torch
    from safetensors.torch import load_file

    from gradbench.backbones.checkpoint import read_checkpoint
    from gradbench.backbones.trained_network import trained_fingerprints
    from gradbench.support.tensors import save_tensors

    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    weights.mkdir(parents=True, exist_ok=True)
    written = []
    for model in sorted((folder / "model").iterdir()):
        about = json.loads((model / "model.json").read_text(encoding="utf-8"))
        seed = int(model.name.removeprefix("s"))
        width = [f"w{run['about']['width']}"] if run["about"]["width"] else []
        parts = [run["about"]["backbone"], about["in_dist"], *width, f"s{seed}"]
        network = model / "network.safetensors"
        note = {
            **{key: about[key] for key in ("network", "classes", "mean", "std")},
            "trained_on": trained_fingerprints(read_checkpoint(network)[1]),
            "training": run["config"]["training"],
            "seed": seed,
            "test_accuracy_before_rounding": about["accuracy"],
            "command": run["about"]["command"],
            "versions": run["versions"],
        }
        written.append(weights / f"{'-'.join(parts)}.safetensors")
        metadata = {"gradbench": json.dumps(note, sort_keys=True)}
        save_tensors(load_file(str(network)), written[-1], metadata, torch.bfloat16)
    sums = [f"{file_digest(p)}  {p.name}\n" for p in sorted(weights.glob("*.safetensors"))]
    (weights / "SHA256SUMS").write_text("".join(sums))
    return written


def write_tables(results: Path = RESULTS) -> list[Path]:
    """Write table.md of every kept run anew from its rows, and return those that changed."""
    from gradbench.report.run_tables import write_markdown

    changed = []
    for path in sorted(results.glob("*/table.md")):
        about = json.loads((path.parent / "run.json").read_text(encoding="utf-8"))["about"]
        text = write_markdown(read_csv(rows_file(path.parent)), about)
        if text != path.read_text(encoding="utf-8"):
            path.write_text(text, encoding="utf-8")
            seal(path.parent)
            changed.append(path)
    return changed


def main() -> None:
    """Read the command line and do what it says."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = arguments.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run")
    run.add_argument("folder", type=Path)
    run.add_argument("name", nargs="?")
    run.add_argument("--also", nargs="*", default=[])
    commands.add_parser("weights").add_argument("folder", type=Path)
    commands.add_parser("tables")
    options = arguments.parse_args()
    if options.command == "tables":
        print(*write_tables(), sep="\n")
    elif not (options.folder / "run.json").is_file():
        arguments.error(f"{options.folder} holds no finished run")
    elif options.command == "run":
        print(keep_run(options.folder, options.name or options.folder.resolve().name, options.also))
    else:
        print(*keep_weights(options.folder), sep="\n")


if __name__ == "__main__":
    main()
