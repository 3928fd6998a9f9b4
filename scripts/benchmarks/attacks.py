r"""Speed, success and size of the attacks beside foolbox's (extra bench), same network and images.

    python scripts/benchmarks/attacks.py --width 32 --dataset cifar10 --data DIR \
        --checkpoint results/weights/resnet18-cifar10-w32-s0.safetensors
    python scripts/benchmarks/attacks.py --attacks fgsm,bim,pgd --rounds 9

Both take turns in rounds; `speed` is foolbox's time divided by ours, the median of the rounds and
their range: above 1, gradbench is faster. `success`: share of the images that were classified
correctly and are not any more; `l2`: mean over those, pixels not rounded to the grid; `alike`:
share of images on which both succeed or both fail. Parameters are frozen for both. Without
--checkpoint weights are random and what the network says counts as right.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from statistics import median
from typing import Any

import harness
import torch
from torch import Tensor

from gradbench.backbones.backbone import Backbone
from gradbench.challenges.attacks.cw import CW
from gradbench.challenges.attacks.projected import BIM, FGSM, PGD, IterLL
from gradbench.challenges.base import CleanBatch

EPSILON, STEP = 8 / 255, 2 / 255
ATTACKS = {
    "fgsm": "L∞ 8/255",
    "bim": "L∞ 8/255, 10 steps of 2/255",
    "pgd": "L∞ 8/255, 20 steps of 2/255, random start",
    "pgd_l2": "L2 0.5, 20 steps of 0.1, random start",
    "iterll": "L∞ 8/255, 10 steps of 1/255",
    "cw_fixed": "c = 1, 50 steps, no early stop",
    "cw": "gradbench: 6 c of 20 steps; foolbox: 9 c of up to 100 steps; both stop early",
}
"""The attacks that are compared, and their settings."""
SHOWN = (
    *("attack", "contender", "images_per_second", "speed", "speed_low", "speed_high", "success"),
    *("l2", "alike", "note"),
)


def attack_pair(name: str, f: Backbone, clean: CleanBatch) -> dict[str, Callable[[], Tensor]]:
    """Return an attack on clean images, ours and foolbox's, with the same budget.

    Both return pixels in [0, 1], not rounded to the grid; foolbox's attacks are run without its own
    look at the result.
    """
    try:
        import foolbox
    except ImportError:
        raise harness.Unavailable("foolbox is not installed (extra bench)") from None
    model = foolbox.PyTorchModel(f, bounds=(0, 1), device=clean.grey.device)
    pixels, labels = clean.grey / 255, clean.labels
    linf = foolbox.attacks.LinfBasicIterativeAttack
    carlini = foolbox.attacks.L2CarliniWagnerAttack
    pairs = {
        "fgsm": (FGSM(epsilon=EPSILON), foolbox.attacks.LinfFastGradientAttack()),
        "bim": (
            BIM(epsilon=EPSILON, step=STEP, steps=10),
            linf(abs_stepsize=STEP, steps=10, random_start=False),
        ),
        "pgd": (
            PGD(epsilon=EPSILON, step=STEP, steps=20),
            foolbox.attacks.LinfPGD(abs_stepsize=STEP, steps=20),
        ),
        "pgd_l2": (
            PGD(norm="l2", epsilon=0.5, step=0.1, steps=20),
            foolbox.attacks.L2PGD(abs_stepsize=0.1, steps=20),
        ),
        "iterll": (
            IterLL(epsilon=EPSILON, step=STEP / 2, steps=10),
            linf(abs_stepsize=STEP / 2, steps=10, random_start=False),
        ),
        "cw_fixed": (
            CW(constant=1.0, binary_steps=1, steps=50, early_stop=False),
            carlini(1, 50, 0.01, initial_const=1.0, abort_early=False),
        ),
        "cw": (CW(constant=0.01), carlini(9, 100, 0.01, initial_const=0.01)),
    }
    ours, theirs = pairs[name]
    budget = {} if name.startswith("cw") else {"epsilon": ours.strength_at(None)}

    def run_theirs() -> Tensor:
        criterion = foolbox.criteria.Misclassification(labels)
        if name == "iterll":
            with torch.no_grad():
                least_likely = f(pixels).argmin(1)
            criterion = foolbox.criteria.TargetedMisclassification(least_likely)
        return theirs.run(model, pixels, criterion, **budget).detach()

    def run_ours() -> Tensor:
        return ours.perturb(clean, ours.strength_at(None), 0, f) / 255

    return {"gradbench": run_ours, "foolbox": run_theirs}


def effect_of(
    f: Backbone, clean: CleanBatch, attacked: Tensor
) -> tuple[float, float | None, Tensor]:
    """Return what attacked pixels in [0, 1] do to images that f classified correctly.

    The share that f is mistaken about afterwards, the mean L2 norm of the perturbation over those
    (None without success), and which they are, (B,).
    """
    pixels = clean.grey / 255
    with torch.no_grad():
        right = f(pixels).argmax(1) == clean.labels
        succeeded = right & (f(attacked).argmax(1) != clean.labels)
    length = (attacked - pixels).flatten(1).norm(dim=1)[succeeded]
    share = float(succeeded.sum() / right.sum().clamp(min=1))
    return share, float(length.mean()) if len(length) else None, succeeded


def compare(name: str, f: Backbone, clean: CleanBatch, rounds: int) -> list[dict[str, Any]]:
    """Time one attack and foolbox's in turn, and return a row for each side."""
    try:
        runs = attack_pair(name, f, clean)
    except harness.Unavailable as fault:
        return [{"attack": name, "note": str(fault)}]
    timed = harness.time_in_turn(runs, rounds, f.device)
    if timed.failed:
        return [{"attack": name, "note": "; ".join(timed.failed.values())}]
    effects = {side: effect_of(f, clean, timed.results[side]) for side in runs}
    (_, l2, succeeded), (_, their_l2, they_succeeded) = effects.values()
    alike = float((succeeded == they_succeeded).float().mean())
    rows = []
    for side, (success, length, _) in effects.items():
        speed = len(clean.grey) / median(timed.seconds[side])
        rows.append({"attack": name, "contender": side, "images_per_second": speed})
        rows[-1] |= {"success": success, "l2": length, "alike": alike}
    rows[0] |= harness.ratio_columns(timed.seconds["foolbox"], timed.seconds["gradbench"], "speed")
    rows[0]["l2_ratio"] = l2 / their_l2 if l2 and their_l2 else None
    rows[0]["note"] = ATTACKS[name]
    return rows


def main() -> None:
    """Run the benchmark, print its table and write its CSV file."""
    names = ("backbone", "width", "checkpoint", "dataset", "data", "images")
    parser = harness.options_parser(__doc__, (*names, "image_size", "rounds"))
    parser.add_argument("--attacks", metavar="A,B,…", help="which of them (all)")
    options = parser.parse_args()
    attacks = harness.chosen_names("attack to compare", options.attacks, list(ATTACKS))
    harness.start(options)
    images = harness.load_images(options, options.images)
    options.image_size = images.shape[1]
    f, _ = harness.make_backbone(options, images)
    f.requires_grad_(False)
    arrays = images.images[: len(images)], images.labels, images.sources
    clean = CleanBatch.from_pixels(*arrays, f.device, quantise=False)
    if not options.checkpoint:
        with torch.no_grad():
            clean = replace(clean, labels=f(clean.grey / 255).argmax(1))
    rows = [row for name in attacks for row in compare(name, f, clean, options.rounds)]
    shared, more = harness.source_columns(options, images)
    more += [f"only_{'_'.join(attacks)}"] if len(attacks) < len(ATTACKS) else []
    harness.write_table("attacks", rows, options, SHOWN, *more, shared=shared)


if __name__ == "__main__":
    harness.main_of(main)
