"""What it is worth that freed memory is kept for the next tensor (gradbench/support/memory.py).

    python scripts/benchmarks/freed_memory.py
        [--width 32] [--batch 256] [--rounds 5] [--out FILE.csv]

Times a forward pass, an ordinary training step and the engine's per-image gradient norms of a
CIFAR ResNet-18, one thread, in processes of their own that take turns: memory given back at once
(the C library's habit), then kept. Tells images per second and the ratio, medians over rounds.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import subprocess
import sys
import time

COLUMNS = ("what", "width", "batch", "images_per_second", "kept", "ratio", "smallest", "largest")


def main() -> None:
    """Read the options, take turns, print the table and write it where asked."""
    words = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    words.add_argument("--width", type=int, default=32)
    words.add_argument("--batch", type=int, default=256)
    words.add_argument("--rounds", type=int, default=5)
    words.add_argument("--out", default=None)
    words.add_argument("--kept", choices=("no", "yes"), default=None, help=argparse.SUPPRESS)
    asked = words.parse_args()
    if asked.kept:
        print(json.dumps(one(asked.width, asked.batch, asked.kept == "yes")))
        return
    turns = [(in_process(asked, "no"), in_process(asked, "yes")) for _ in range(asked.rounds)]
    rows = [COLUMNS]
    for what in turns[0][0]:
        ratios = [after[what] / before[what] for before, after in turns]
        speeds = [statistics.median(turn[side][what] for turn in turns) for side in (0, 1)]
        numbers = (statistics.median(ratios), min(ratios), max(ratios))
        rows.append((what, asked.width, asked.batch, *(f"{speed:.1f}" for speed in speeds),
                     *(f"{number:.2f}" for number in numbers)))  # fmt: skip
    for row in rows:
        print("  ".join(f"{word!s:<17}" for word in row).rstrip())
    if asked.out:
        with open(asked.out, "w", newline="", encoding="utf-8") as stream:
            csv.writer(stream, lineterminator="\n").writerows(rows)


def in_process(asked: argparse.Namespace, kept: str) -> dict[str, float]:
    """Return images per second by what is done, measured in a new process."""
    command = [sys.executable, __file__, "--kept", kept,
               "--width", str(asked.width), "--batch", str(asked.batch)]  # fmt: skip
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(ran.stdout)


def one(width: int, batch: int, kept: bool) -> dict[str, float]:
    """Return images per second by what is done, in this process."""
    from gradbench.support.memory import keep_freed_memory

    if kept and not keep_freed_memory():
        sys.exit("freed_memory.py: this C library does not know how, or MALLOC_… is set")
    import torch
    from torch.nn import functional as F

    from gradbench.backbones.resnet import ResNet
    from gradbench.gradients import squared_norms

    torch.set_num_threads(1)
    torch.manual_seed(0)
    f, images = ResNet(18, 10, width=width).eval(), torch.rand(batch, 3, 32, 32)
    ones = torch.ones(batch, 10)

    def forward() -> None:
        with torch.no_grad():
            f(images)

    def step() -> None:
        f.zero_grad()
        F.binary_cross_entropy_with_logits(f(images), ones).backward()

    def norms() -> None:
        squared_norms(f, images)

    works = {"forward": forward, "training step": step, "gradient norms": norms}
    speeds = {}
    for what, work in works.items():
        work()
        begin = time.perf_counter()
        for _ in range(3):
            work()
        speeds[what] = 3 * batch / (time.perf_counter() - begin)
    return speeds


if __name__ == "__main__":
    main()
