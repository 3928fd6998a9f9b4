"""What the steps of a run took, from the notes of their products."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradbench.methods.base import Detector
from gradbench.report.grid import Grid, markdown
from gradbench.run.pass_times import passes_settings
from gradbench.store import Key, Product, Store

COLUMNS = (
    *("step", "what", "images", "seconds", "images_per_second", "with_passes_per_second"),
    *("peak_mib", "peak_device_mib", "forward_passes", "backward_passes", "made_by_this_run"),
)
SCORING = ("image_scores", "scores", "transfer")
"""Steps that score images: the first one that a detector has tells its speed."""
MEMORY = ("peak_mib", "peak_device_mib")
HEAD = """# Costs

Times are of the run that made a product, whenever that was, on the hardware that its manifest in
the store names; they are no part of what equal runs have equal. *Scoring* is the detector's own
work: of those that learn from challenges with the fits of all folds, of those that perturb images
without their passes. *With passes*: with all passes through f that it needs of an image, those over
perturbed images among them, made for it alone: one batch is timed for that, since the passes of a
run serve many detectors at once. Where the fits of a detector differ, passes are those of the fit
that takes the most. Peak memory is what fitting, scoring or that batch of passes adds to what was
in use before, whichever adds the most; empty where the system does not tell."""


@dataclass
class Cost:
    """What was spent on one thing in one step."""

    images: int = 0
    seconds: float = 0.0
    made: bool = False
    peak_mib: float | None = None
    peak_device_mib: float | None = None
    with_passes: float | None = None
    """Images per second of scoring with the passes that give what a detector reads."""

    def add(self, images: int, seconds: float, made: bool, about: Mapping) -> None:
        """Add a product; memory is that of the hungriest."""
        self.images, self.seconds = self.images + images, self.seconds + seconds
        self.made |= made
        for name in MEMORY:
            known = [v for v in (getattr(self, name), about.get(name)) if v is not None]
            setattr(self, name, max(known, default=None))

    @property
    def rate(self) -> float | None:
        """Images per second."""
        return self.images / self.seconds if self.images and self.seconds > 0 else None


Costs = dict[tuple[str, str], Cost]
"""By step and thing made."""


Detectors = Mapping[str, Detector | None]
"""As they were fitted, see `pass_times.costliest`; None for one that never was."""


def gathered(store: Store, detectors: Detectors) -> Costs:
    """Return what was spent on everything that a run used, whoever made it."""
    costs: Costs = {}
    for key, (product, made) in store.used.items():
        for what, images, seconds in _cost(key, product):
            costs.setdefault((key.step, what), Cost()).add(images, seconds, made, product.about)
    for (step, what), cost in costs.items():
        if step in SCORING:
            passes = passes_of(costs, detectors.get(_detector(what)))
            cost.with_passes = one_after_another(cost, passes)
    return costs


def write_costs(store: Store, path: Path, detectors: Detectors) -> None:
    """Write one line per step and thing made: images, seconds, memory, and who made it.

    Args:
        store: with the products that the run used.
        path: of the CSV.
        detectors: of the run, fitted.
    """
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for (step, what), cost in gathered(store, detectors).items():
            detector = detectors.get(_detector(what)) if step in SCORING else None
            rates = [f"{rate:.4g}" if rate else "" for rate in (cost.rate, cost.with_passes)]
            memory = ["" if (v := getattr(cost, name)) is None else f"{v:.1f}" for name in MEMORY]
            made = "yes" if cost.made else "no"
            line = [step, what, cost.images or "", f"{cost.seconds:.3f}", *rates, *memory]
            writer.writerow([*line, *_counts(detector), made])


def costs_table(store: Store, detectors: Detectors) -> str:
    """Return `costs.md`: speed, memory and passes of each detector.

    Args:
        store: with the products that the run used.
        detectors: of the run, fitted.
    """
    costs = gathered(store, detectors)
    header = (
        *("detector", "forward", "backward", "scoring, images/s", "with passes, images/s"),
        *("peak memory, MiB", "on the device, MiB"),
    )
    rows = []
    for name, detector in detectors.items():
        spent = [
            cost
            for (step, what), cost in costs.items()
            if step in (*SCORING, "fits", "fit") and _detector(what) == name
        ]
        spent.append(passes_of(costs, detector))
        memory = [max((m for c in spent if (m := getattr(c, n)) is not None), default=None)
                  for n in MEMORY]  # fmt: skip
        scoring = scoring_of(costs, name)
        rates = (scoring.rate, scoring.with_passes)
        rows.append((
            name,
            *map(str, _counts(detector)),
            *(f"{rate:,.0f}" if rate else "" for rate in rates),
            *("" if m is None else f"{m:.1f}" for m in memory),
        ))  # fmt: skip
    return f"{HEAD}\n\n{markdown(Grid(header, tuple(rows)).without_empty_columns())}\n"


def scoring_of(costs: Costs, name: str) -> Cost:
    """Return what a detector's own scoring took, in the first of the steps that score."""
    places = [
        (SCORING.index(step), cost)
        for (step, what), cost in costs.items()
        if step in SCORING and _detector(what) == name
    ]
    return min(places, key=lambda one: one[0], default=(0, Cost()))[1]


def one_after_another(scoring: Cost, passes: Cost) -> float | None:
    """Return images per second of both together, None where one is unknown."""
    if not scoring.rate or not passes.rate:
        return None
    return 1 / (1 / scoring.rate + 1 / passes.rate)


def passes_of(costs: Costs, detector: Detector | None) -> Cost:
    """Return what the passes of a detector took, those of one batch made for it alone."""
    settings = passes_settings(detector) if detector else {}
    return costs.get(("passes", together(settings)), Cost())


def together(settings: Mapping[str, Any]) -> str:
    """Return the passes of a detector as one name among the costs.

    >>> together({"reads": ["logits"], "perturbed": [["logits", {}, [0.1]]]})
    'logits + logits after 1 step'
    """
    moved = [
        f"{source} after {len(magnitudes)} step{'s' * (len(magnitudes) > 1)}"
        for source, _, magnitudes in settings.get("perturbed", ())
    ]
    return " + ".join([*sorted(settings.get("reads", ())), *moved])


def _detector(what: str) -> str:
    """Return the detector in the name of a thing made: `gradient` of `gradient@svhn`."""
    return what.partition("@")[0]


def _counts(detector: Detector | None) -> tuple[int | str, int | str]:
    """Return the numbers of forward and backward passes for an image."""
    of = detector and detector.pass_count
    return (of.forward, of.backward) if of else ("", "")


def _group(read: str) -> str:
    """Return what an output is called among the costs: layers of one kind together."""
    return read if "norms" in read else read.split("/")[0]


def _cost(key: Key, product: Product) -> Iterator[tuple[str, int, float]]:
    """Yield what was made, from how many images, in how many seconds; nothing for a shared pass."""
    about = product.about
    if key.step == "outputs":
        # outputs of one pass share its time, which is counted with the first of them
        if key.config["output"] == about["pass"][0]:
            read = dict.fromkeys(_group(name) for name in about["pass"])
            yield " + ".join(read), about["images"], about["pass_seconds"]
        return
    if key.step == "passes":
        yield together(key.config), about["images"], about["pass_seconds"]
        return
    what = {
        "network": lambda: f"{key.config['network']['_target_'].rpartition('.')[2]} seed "
        f"{key.config['seed']}",
        "challenge": lambda: key.config["family"],
        **{step: lambda: about["detector"] for step in (*SCORING, "fits", "fit")},
        "perturbed": lambda: key.config["source"],
    }.get(key.step, lambda: "")()
    seconds = about.get("training_seconds", about["seconds"]) - about.get("seconds_of_passes", 0)
    yield what, about.get("images", 0), seconds
