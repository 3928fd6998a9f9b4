"""What the steps of a run took, from the notes of their products."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gradbench.detectors.base import Passes
from gradbench.reporting.grid import Grid, markdown
from gradbench.store import Key, Product, Store

COLUMNS = (
    *("step", "what", "images", "seconds", "images_per_second", "peak_mib", "peak_device_mib"),
    *("forward_passes", "backward_passes", "made_by_this_run"),
)
SCORING = ("image_scores", "scores", "transfer")
"""Steps that score images: the first one that a detector has tells its speed."""
MEMORY = ("peak_mib", "peak_device_mib")
HEAD = """# Costs

Times are of the run that made a product, whenever that was, on the hardware that its manifest in
the store names; they are no part of what equal runs have equal. *Scoring* is the detector's own
work: of those that learn from challenges with the fits of all folds, of those that perturb images
without their passes. *With passes*: with all passes through f that it needs of an image, made for
it alone: one batch of them is timed for that, since those of the run serve many detectors at once.
Peak memory is what fitting and scoring add to what was in use before; empty where
the system does not tell."""


@dataclass
class Cost:
    """What was spent on one thing in one step."""

    images: int = 0
    seconds: float = 0.0
    made: bool = False
    peak_mib: float | None = None
    peak_device_mib: float | None = None

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


def gathered(store: Store) -> Costs:
    """Return what was spent on everything that a run used, whoever made it."""
    costs: Costs = {}
    for key, (product, made) in store.used.items():
        for what, images, seconds in _cost(key, product):
            costs.setdefault((key.step, what), Cost()).add(images, seconds, made, product.about)
    return costs


def write_costs(store: Store, path: Path, passes: Mapping[str, Passes]) -> None:
    """Write one line per step and thing made: images, seconds, memory, and who made it.

    Args:
        store: with the products that the run used.
        path: of the CSV.
        passes: through f that each detector takes to score an image.
    """
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for (step, what), cost in gathered(store).items():
            of = passes.get(what.partition("@")[0]) if step in SCORING else None
            counts = ("", "") if of is None else (of.forward, of.backward)
            memory = ["" if (v := getattr(cost, name)) is None else f"{v:.1f}" for name in MEMORY]
            rate = f"{cost.rate:.4g}" if cost.rate else ""
            made = "yes" if cost.made else "no"
            line = [step, what, cost.images or "", f"{cost.seconds:.3f}", rate, *memory, *counts]
            writer.writerow([*line, made])


def costs_table(
    store: Store, detectors: Mapping[str, Mapping], passes: Mapping[str, Passes]
) -> str:
    """Return `costs.md`: speed, memory and passes of each detector.

    Args:
        store: with the products that the run used.
        detectors: name -> `reads`.
        passes: through f that each detector takes to score an image.
    """
    costs = gathered(store)
    header = (
        *("detector", "forward", "backward", "scoring, images/s", "with passes, images/s"),
        *("peak memory, MiB", "on the device, MiB"),
    )
    rows = []
    for name, what in detectors.items():
        own = [
            (step, cost)
            for step in (*SCORING, "fits", "fit")
            for (at, of), cost in costs.items()
            if at == step and of.partition("@")[0] == name
        ]
        scoring = scoring_of(costs, name)
        memory = [max((m for _, c in own if (m := getattr(c, n)) is not None), default=None)
                  for n in MEMORY]  # fmt: skip
        of = passes.get(name)
        whole = with_passes(scoring, costs, what["reads"], of)
        rows.append((
            name,
            "" if of is None else str(of.forward),
            "" if of is None else str(of.backward),
            f"{scoring.rate:,.0f}" if scoring.rate else "",
            f"{whole:,.0f}" if whole else "",
            *("" if m is None else f"{m:.1f}" for m in memory),
        ))  # fmt: skip
    return f"{HEAD}\n\n{markdown(Grid(header, tuple(rows)).without_empty_columns())}\n"


def scoring_of(costs: Costs, name: str) -> Cost:
    """Return what a detector's own scoring took, in the first of the steps that score."""
    places = [
        (SCORING.index(step), cost)
        for (step, what), cost in costs.items()
        if step in SCORING and what.partition("@")[0] == name
    ]
    return min(places, key=lambda one: one[0], default=(0, Cost()))[1]


def with_passes(
    scoring: Cost, costs: Costs, reads: Sequence[str], of: Passes | None
) -> float | None:
    """Return images per second with the passes that give what a detector reads.

    None where they were not timed, or further passes over perturbed images come on top, whose
    times depend on how many images were drawn.
    """
    passes = costs.get(("passes", _together(reads)), Cost())
    norms = sum(read.startswith("squared_norms") for read in reads)
    perturbs = of is not None and of.backward > norms
    if not scoring.rate or not passes.rate or perturbs:
        return None
    return 1 / (1 / scoring.rate + 1 / passes.rate)


def _together(reads: Iterable[str]) -> str:
    """Return what a detector reads as one name among the costs."""
    return " + ".join(sorted(reads))


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
        yield _together(key.config["reads"]), about["images"], about["pass_seconds"]
        return
    what = {
        "network": lambda: f"{key.config['network']['_target_'].rsplit('.', 1)[1]} seed "
        f"{key.config['seed']}",
        "challenge": lambda: key.config["family"],
        **{step: lambda: about["detector"] for step in (*SCORING, "fits", "fit")},
        "perturbed": lambda: key.config["source"],
    }.get(key.step, lambda: "")()
    seconds = about.get("training_seconds", about["seconds"]) - about.get("seconds_of_passes", 0)
    yield what, about.get("images", 0), seconds
