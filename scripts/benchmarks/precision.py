r"""Error of squared gradient norms in each number format, against float64.

    python scripts/benchmarks/precision.py
    python scripts/benchmarks/precision.py --width 32 --dataset cifar10 --data DIR --images 500 \
        --checkpoint results/weights/resnet18-cifar10-w32-s0.safetensors

Relative errors of squared norms, one value per image and tensor: median, below which 90 and 99 %
lie, largest. `sum_`: the same of the sum over an image's tensors. `rank`: Spearman correlation of
that sum over images with the exact one; `least_rank`: the smallest one of a single tensor. `off`:
share of images with any tensor wrong by more than 10 %. Without --checkpoint weights are random,
and then the figures are no more than a hint.

Quantiles, and not the largest error alone: in float32 most values are right to a millionth, but
where an input of a ReLU lies within rounding of zero, its gradient passes in one format and not in
the other, and all tensors before it change by up to a hundredth, for this image alone. A trained
ResNet-18 of width 32, 500 CIFAR-10 test images, each with 278,528 inputs of ReLUs: one of them has
another sign in float32 than in float64 in 9 images, whose errors are 2e-5 to 3e-3; the errors of
all other images are below 4e-6.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from statistics import median
from typing import Any

import harness
import numpy as np
import torch
from engine import FLOOR, relative_errors
from scipy.stats import rankdata
from torch import Tensor, nn

from gradbench.backbones.devices import find_device
from gradbench.errors import GradbenchError
from gradbench.gradients import squared_norms
from gradbench.gradients.precision import prefers_channels_last

EXACT = "float64 contiguous"
LEVELS = {"median": 0.5, "p90": 0.9, "p99": 0.99, "largest": 1.0}
OFF = 0.1
"""An image counts as off if any tensor's relative error is larger."""
SHOWN = (
    *("precision", "layout", *LEVELS, "sum_median", "sum_p99", "rank", "least_rank", "off"),
    *("time_ratio", "note"),
)


def rounding(norms: Tensor, exact: Tensor, names: Sequence[str]) -> dict[str, Any]:
    """Return relative errors of squared norms and rank correlations with the exact ones.

    Norms are (B, d). Differences below a millionth of their image's largest are taken relative to
    that millionth, and a tensor whose norms are all as small has no rank.
    """
    norms, exact = norms.double().cpu(), exact.double().cpu()
    errors = relative_errors(norms, exact)
    sums, exact_sums = norms.sum(1, keepdim=True), exact.sum(1, keepdim=True)
    weighty = (exact > FLOOR * exact.amax(1, keepdim=True)).any(0).tolist()
    ranks = {
        name: rank
        for i, name in enumerate(names)
        if weighty[i] and (rank := spearman(norms[:, i], exact[:, i])) is not None
    }
    least = min(ranks, key=ranks.get) if ranks else None
    return {
        **_quantiles(errors, ""),
        **_quantiles(relative_errors(sums, exact_sums), "sum_"),
        "rank": spearman(sums[:, 0], exact_sums[:, 0]),
        "least_rank": ranks.get(least),
        "least_tensor": least,
        "off": float((errors > OFF).any(1).double().mean()),
        "not_finite": int((~norms.isfinite()).sum()),
    }


def spearman(values: Tensor, exact: Tensor) -> float | None:
    """Return the rank correlation of (B,) values, None where either is constant; NaN ranks last."""
    a, b = (rankdata(np.nan_to_num(v.numpy(), nan=np.inf)) for v in (values, exact))
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(np.corrcoef(a, b)[0, 1])


def _quantiles(errors: Tensor, prefix: str) -> dict[str, float]:
    flat = errors.flatten().numpy()
    # between two values the upper one: infinity cannot be interpolated
    return {f"{prefix}{name}": float(np.quantile(flat, q, method="higher"))
            for name, q in LEVELS.items()}  # fmt: skip


def measure(model: nn.Module, pixels: Tensor, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Compute the norms of all images in every format, and compare them with float64."""
    device = find_device(options.device)
    reduced = ("tf32", "bfloat16", "float16")
    usual = {p: prefers_channels_last(device, p, torch.float32) for p in ("float32", *reduced)}
    formats = [("float64", False), ("float32", usual["float32"]), ("float32", not usual["float32"])]
    formats += [(precision, usual[precision]) for precision in reduced]
    layouts = {True: "channels_last", False: "contiguous"}
    named = {f"{precision} {layouts[last]}": (precision, last) for precision, last in formats}
    reference = list(named)[1]
    names: list[str] = []

    def compute(precision: str, channels_last: bool) -> Tensor:
        if precision == "tf32" and device.type == "cpu":
            raise harness.Unavailable("needs an NVIDIA GPU")
        results = [
            squared_norms(model, batch, precision=precision, channels_last=channels_last)
            for batch in pixels.split(options.batch)
        ]
        names[:] = results[0].names
        return torch.cat([result.values for result in results])

    runs = {name: partial(compute, *what) for name, what in named.items()}
    timed = harness.time_in_turn(runs, options.rounds, device, warm_up=options.rounds > 1)
    if EXACT in timed.failed:
        raise GradbenchError(f"float64, to which all is compared, failed: {timed.failed[EXACT]}")
    rows = []
    for name, (precision, last) in named.items():
        row = {"precision": precision, "layout": layouts[last], "tensors": len(names)}
        if name in timed.failed:
            rows.append(row | {"note": timed.failed[name]})
            continue
        seconds = timed.seconds[name]
        row["images_per_second"] = len(pixels) / median(seconds)
        if reference in timed.seconds:
            row |= harness.ratio_columns(seconds, timed.seconds[reference], "time_ratio")
        if name != EXACT:
            row |= rounding(timed.results[name], timed.results[EXACT], names)
        notes = {EXACT: "errors are taken to it", reference: "times are taken to it"}
        rows.append(row | {"note": notes.get(name, "")})
    return rows


def main() -> None:
    """Run the benchmark, print its table and write its CSV file."""
    names = ("backbone", "width", "checkpoint", "dataset", "data", "images")
    names += ("batch", "image_size", "rounds")
    options = harness.options_parser(__doc__, names, images=256, rounds=1).parse_args()
    harness.start(options)
    images = harness.load_images(options, options.images)
    options.image_size = images.shape[1]
    model, pixels = harness.make_backbone(options, images)
    shared, more = harness.source_columns(options, images)
    rows = measure(model, pixels, options)
    harness.write_table("precision", rows, options, SHOWN, *more, shared=shared)


if __name__ == "__main__":
    harness.main_of(main)
