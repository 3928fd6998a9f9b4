"""Folders of finished runs made by hand, and the user's own table that reads them."""

import json

from gradbench.report.finished_run import seal
from gradbench.run.rows import frame, hole, row, write_csv

TABLE = """
title: Made up
description: two sets in, three methods
published: made
layout: {panels: [metric], rows: [in_dist, challenge], columns: [method]}
protocols: [grouped, icip2020]
metrics:
  auroc: {title: AUROC}
  aupr:
    title: AUPR
    measures: {in: {metric: aupr, side: in}, balanced: {metric: aupr_balanced, side: out}}
notes: [The print is made up.]
measured:
  - in_dist: {A: cifar10, B: gtsrb}
    backbone: resnet18
    experiment: {A: [ood_cifar10, ood_cifar10_far], B: ood_gtsrb}
    challenge: {Far: [svhn, scenes], Near: cifar100}
    method: {Baseline: msp, Energy: energy, Ours: gradient}
hole: "method not built: {method} for {metric}"
"""
PRINTED = """\
A,Far,Baseline,auroc,percent,80.00
A,Far,Energy,auroc,percent,85.00
A,Far,Ours,auroc,percent,99.00
A,Far,Nobody's,auroc,percent,70.0
A,Near,Baseline,auroc,fraction,0.800
A,Near,Ours,auroc,fraction,0.790
B,Far,Baseline,auroc,percent,60.00
B,Far,Ours,auroc,percent,65.00
A,Far,Baseline,aupr,percent,81.00
A,Far,Ours,aupr,percent,98.00
A,Far,Nobody's,aupr,percent,50.00
"""
HEADER = (
    "table,paper,backbone,in_dist,challenge_set,challenge,level,method,variant,metric,unit,value,"
    "higher_is_better,source,note\n"
)


def own_table(folder, text=TABLE, printed=PRINTED, name="made"):
    """Write a table of the user's own and its published numbers; return --config-dir."""
    place = folder / "table"
    place.mkdir(parents=True, exist_ok=True)
    lines = [line.split(",") for line in printed.splitlines()]
    rows = [f"made,me,,{a},ood,{b},,{c},,{d},{e},{f},1,deck,\n" for a, b, c, d, e, f in lines]
    (place / f"{name}.csv").write_text(HEADER + "".join(rows))
    (place / f"{name}.yaml").write_text(text)
    return folder


def measured(challenge, method, value, metric="auroc", half=1.0, **more):
    """Return the row of a measured number, in percent, with an interval around it."""
    usual = {
        "experiment": "ood_cifar10",
        "backbone": "resnet18",
        "width": 64,
        "in_dist": "cifar10",
        "role": "main",
        "challenge_set": "ood",
        "source": "official",
        "supervision": {"msp": "none", "gradient": "training"}.get(method, "none"),
        "clean_seen": "none",
        "protocol": "grouped",
        "fold": "all",
        "train_seed": 0,
        "n_normal": 10000,
        "n_abnormal": 2000,
        "unit": "percent",
    }
    bounds = {"lo": value - half, "hi": value + half} if half else {}
    names = {"challenge": challenge, "method": method, "metric": metric, "value": value}
    return row(**(usual | bounds | names | more))


def absent(challenge, reason, **more):
    """Return the row of a challenge that was not measured."""
    names = {"in_dist": "cifar10", "role": "main", "challenge_set": "ood"}
    names |= {"challenge": challenge}
    return hole(reason, **(names | more))


def write_run(folder, rows, name="ood_cifar10", begun="2026-05-01T10:00:00+0000", **more):
    """Write the folder of a finished run.

    Args:
        folder: of the run.
        rows: its rows.
        name: of the experiment.
        begun: when.
        more: `width`, `weights`, `backbone`, `in_dist`, `protocol`, `limit`, `data`, `accuracy`,
            `network_origin`, `detectors` of the configuration.
    """
    folder.mkdir(parents=True)
    width, in_dist = more.get("width", 64), more.get("in_dist", "cifar10")
    backbone = more.get("backbone", "resnet18")
    accuracy = more.get("accuracy", {"0": 0.95})
    about = {
        "experiment": name,
        "in_dist": in_dist,
        "backbone": backbone,
        "width": width,
        "accuracy": accuracy,
        "n_clean": 10000,
        "protocol": more.get("protocol", "grouped"),
        "detectors": {},
        "command": "gradbench run",
        "network_origin": more.get("network_origin", ""),
    }
    config = {
        "backbone": {"name": backbone, "width": width, "depth": 18},
        "limit": more.get("limit"),
        "detectors": more.get("detectors", []),
        "evaluation": {"seed": 0},
        "challenge": {"seed": 0},
    }
    told = {
        "about": about,
        "config": config,
        "data": more.get("data", {}),
        "time": {"begun": begun},
        "code": {"commit": "0123456789", "version": "0.1.0"},
        "networks": {seed: {"weights": more.get("weights", "w") + seed} for seed in accuracy},
    }
    (folder / "run.json").write_text(json.dumps(told))
    write_csv(frame(rows), folder / "results.csv")
    assert seal(folder)
    return folder
