"""Seconds that fit and scores of each detector take, outputs of the network being at hand.

    python scripts/benchmarks/detectors.py --width 32 --threads 2
    python scripts/benchmarks/detectors.py --detectors knn,lid --images 1000 --bank 5000

Every detector that does not perturb images is fitted and scores all images of both sides, as a run
does it: those that see no challenge once, the others in each of five grouped folds, on one thread.
Outputs have the names and shapes of those of the network, and the mean and deviation that they have
on tiles of photographs; they are drawn, since no time here depends on what f is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import harness
import numpy as np
import torch
from torch import Tensor

from gradbench.backbones.backbone import Backbone
from gradbench.config import group_files, load_member
from gradbench.data.imageset import ImageSet, source_ids
from gradbench.methods.base import Detector, Outputs, Samples, learned_among, outputs_among
from gradbench.methods.fold_scores import CleanOutputs, divide_by_fold, one_thread, score_folds
from gradbench.outputs.extract import select_outputs
from gradbench.outputs.layers import head_tensors
from gradbench.outputs.read import compute_outputs
from gradbench.protocols.base import Grouped
from gradbench.support.instantiate import instantiate

FOLDS = 5
CLASS_SHIFT = 1.0
"""Deviation of the class means, in units of the spread within a class."""
ABNORMAL_SHIFT = 1.0
"""How far abnormal images lie off, in the same unit."""
SHOWN = ("detector", "supervision", "fits", "seconds", "seconds_low", "seconds_high", "cpu_seconds")


class DrawnOutputs:
    """Random outputs alike in name, shape, mean and spread to those that f gives for images."""

    def __init__(self, f: Backbone, images: ImageSet, names: Sequence[str]):
        self.values = compute_outputs(f, images, slice(0, len(images)), list(names)).values
        self.classes = len(f.classes)

    def draw(self, count: int, seed: int, shift: float = 0.0) -> Outputs:
        """Return all outputs of so many images, always the same for a seed, and their labels."""
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, self.classes, count)
        found = {"labels": torch.from_numpy(labels)}
        for name, values in self.values.items():
            flat = values.double().flatten(1).numpy()
            positive = bool((flat > 0).all())  # such as norms: drawn by their logarithms
            flat = np.log(flat) if positive else flat
            of_class = np.random.default_rng(0).standard_normal((self.classes, flat.shape[1]))
            noise = rng.standard_normal((count, flat.shape[1])) + CLASS_SHIFT * of_class[labels]
            flat = flat.mean(0) + (flat.std(0) + 1e-6) * (noise + shift)
            flat = np.exp(flat) if positive else flat
            found[name] = torch.from_numpy(flat).float().reshape(count, *values.shape[1:])
        return found


def fit_and_score(
    make: Callable[[], Detector],
    drawn: DrawnOutputs,
    sides: tuple[Outputs, Outputs],
    bank: Outputs,
    hold_out: Outputs,
    folds: Sequence,
) -> Callable[[], None]:
    """Return a function that fits a detector and scores both sides with it, as a run does."""
    detector = make()
    normal, abnormal = (_selected(side, detector.reads) for side in sides)
    clean = CleanOutputs(
        _selected(bank, detector.bank_reads),
        _selected(hold_out, detector.hold_out_reads),
    )
    own = [Samples.normal(clean.hold_out)] * 2
    if detector.synthetic:  # halves of the hold-out, and as much of each of its own challenges
        count = min(detector.synthetic_images, len(hold_out["labels"])) // 2
        many = count * len(detector.synthetic)
        own = [
            Samples.join(
                _selected(drawn.draw(count, 4 + half), detector.reads),
                _selected(drawn.draw(many, 6 + half, ABNORMAL_SHIFT), detector.reads),
            )
            for half in range(2)
        ]

    def run() -> None:
        if detector.learns_from_challenges:
            score_folds(make, normal, abnormal, folds, 0, clean)
            return
        with one_thread():
            fitted = make().fit(clean.bank, *own, 0)
            scores = [fitted.score(side).double().numpy() for side in (normal, abnormal)]
        divide_by_fold(*scores, folds)

    return run


def _selected(outputs: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
    head = {name: outputs[name] for name in names if name.startswith("head/")}
    return select_outputs(outputs, [name for name in names if name not in head]) | head


def main() -> None:
    """Run the benchmark, print its table and write its CSV file."""
    names = ("backbone", "width", "images", "batch", "image_size", "rounds")
    parser = harness.options_parser(__doc__, names, images=10_000, rounds=1)
    parser.add_argument("--detectors", metavar="A,B,…", help="which of them (all that can be)")
    parser.add_argument("--bank", type=harness.positive, default=45_000, help="training images")
    parser.add_argument("--hold-out", type=harness.positive, default=5_000, help="clean images")
    options = parser.parse_args()
    harness.start(options)
    options.image_size = options.image_size or 32
    tiles = harness.load_images(options, options.batch)
    f, _ = harness.make_backbone(options, tiles)

    members = {name: load_member("detector", name) for name in group_files("detector")}
    makes = {
        n: partial(instantiate, "detector", n, c) for n, c in members.items() if "_target_" in c
    }
    # what outputs learn takes images with labels, and these have none of their own
    plain = [
        n
        for n, make in makes.items()
        if not (make().planned_passes(f.feature_layers) or learned_among(make().bank_reads))
    ]
    chosen = harness.chosen_names(
        "detector that neither perturbs images nor reads what outputs learn",
        options.detectors,
        plain,
    )
    detectors = {name: makes[name]() for name in chosen}
    reads = {n for d in detectors.values() for n in (*d.reads, *d.bank_reads, *d.hold_out_reads)}
    drawn = DrawnOutputs(f, tiles, sorted(outputs_among(reads)))
    sides = drawn.draw(options.images, 0), drawn.draw(options.images, 1, ABNORMAL_SHIFT)
    clean = drawn.draw(options.bank, 2) | head_tensors(f), drawn.draw(options.hold_out, 3)
    groups = source_ids("drawn", "test", options.images)
    folds = Grouped(folds=FOLDS).folds(groups, groups)
    runs = {name: fit_and_score(makes[name], drawn, sides, *clean, folds) for name in chosen}
    timed = harness.time_in_turn(
        runs, options.rounds, torch.device(options.device), warm_up=False, shortest=0
    )
    rows = []
    for name, detector in detectors.items():
        row = {"detector": name, "supervision": detector.supervision}
        row["fits"] = FOLDS if detector.learns_from_challenges else 1
        rows.append(row | (timed.columns(name) if name in timed.seconds else {}))
        rows[-1]["note"] = timed.failed.get(name, "")
    numbers = ("fits", "seconds", "seconds_low", "seconds_high", "cpu_seconds")
    total = {column: sum(row.get(column, 0) for row in rows) for column in numbers}
    rows.append({"detector": "all of them"} | total)
    shared = {name: getattr(options, name) for name in ("images", "bank", "hold_out")}
    more = [f"{options.images}images"]
    more += [f"only_{'_'.join(chosen)}"] if options.detectors else []
    harness.write_table("detectors", rows, options, SHOWN, *more, shared=shared | {"folds": FOLDS})


if __name__ == "__main__":
    harness.main_of(main)
