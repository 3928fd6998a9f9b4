"""The worth of keeping freed memory for the next tensor (gradbench/support/memory.py).

    python scripts/benchmarks/freed_memory.py --width 32 --batch 256 --rounds 5

Times a forward pass, an ordinary training step and the engine's per-image gradient norms of a
CIFAR ResNet-18, one thread, in processes of their own that take turns: memory given back at once
(the C library's habit), then kept. Tells images per second and the ratio, medians over rounds.
"""

from __future__ import annotations

import argparse
import json
import time
from statistics import median

import harness
import torch
from engine import LOSS

from gradbench.backbones.resnet import ResNet
from gradbench.errors import GradbenchError
from gradbench.gradients import squared_norms
from gradbench.support.memory import keep_freed_memory

SHOWN = ("work", "images_per_second", "kept", "ratio", "ratio_low", "ratio_high")


def speeds(options: argparse.Namespace) -> dict[str, float]:
    """Return images per second by the work that is done, in this process."""
    if options.kept == "yes" and not keep_freed_memory():
        raise GradbenchError("this C library cannot keep freed memory, or MALLOC_… is set")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    f = ResNet(18, 10, width=options.width).eval()
    images = torch.rand(options.batch, 3, 32, 32)

    def forward() -> None:
        with torch.no_grad():
            f(images)

    def step() -> None:
        f.zero_grad()
        LOSS(f(images)).mean().backward()

    def norms() -> None:
        squared_norms(f, images)

    measured = {}
    for name, work in (("forward", forward), ("training step", step), ("gradient norms", norms)):
        work()
        begin = time.perf_counter()
        for _ in range(3):
            work()
        measured[name] = 3 * options.batch / (time.perf_counter() - begin)
    return measured


def main() -> None:
    """Take turns, print the table and write its CSV file."""
    names = ("width", "batch", "rounds")
    parser = harness.options_parser(__doc__, names, width=32, batch=256, rounds=5, threads=1)
    parser.add_argument("--kept", choices=("no", "yes"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.kept:
        print(json.dumps(speeds(options)))
        return
    harness.start(options)
    turns = [
        [harness.in_fresh_process(__file__, "--kept", kept) for kept in ("no", "yes")]
        for _ in range(options.rounds)
    ]
    rows = []
    for name in turns[0][0]:
        freed, kept = ([turn[side][name] for turn in turns] for side in (0, 1))
        row = {"work": name, "images_per_second": median(freed), "kept": median(kept)}
        rows.append(row | harness.ratio_columns(kept, freed, "ratio"))
    harness.write_table("freed_memory", rows, options, SHOWN)


if __name__ == "__main__":
    harness.main_of(main)
