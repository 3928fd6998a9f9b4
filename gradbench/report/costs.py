"""The time of the steps of a run, from the manifests of their products."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from gradbench.errors import GradbenchError, printable
from gradbench.methods.base import Method
from gradbench.report.table import TextTable, markdown
from gradbench.run.pass_times import passes_settings
from gradbench.run.rows import LARGEST
from gradbench.store import Key, Product, Store
from gradbench.support.files import read_bytes

SCORING = ("image_scores", "scores", "transfer")
"""Steps that score images: the first one that a detector has tells its speed."""
OF_DETECTORS = (*SCORING, "fit")
MEMORY = ("peak_mib", "peak_device_mib")
COLUMNS = (
    *("step", "what", "images", "seconds", "images_per_second", "with_passes_per_second"),
    *("peak_mib", "peak_device_mib", "forward_passes", "backward_passes", "made_by_this_run"),
)
HEAD = """# Costs

Times are of the run that made a product, whenever that was, on the hardware that its manifest in
the store names; they are no part of what equal runs have equal. *Scoring* is the detector's own
work: of those that learn from challenges with the fits of all folds, of those that perturb images
without their passes. *With passes*: with all passes through f that it needs of an image, those over
perturbed images among them, made for it alone: one batch is timed for that, since the passes of a
run serve many detectors at once. Where the fits of a detector differ, passes are those of the fit
that takes the most. Peak memory is what fitting, scoring or that batch of passes adds to what was
in use before, whichever adds the most; empty where the system does not tell."""
Detectors = Mapping[str, Method | None]
"""As they were fitted, see `pass_times.costliest`; None for one that never was."""


def collect_costs(store: Store, detectors: Detectors) -> pd.DataFrame:
    """Return what was spent on everything that a run used, whoever made it.

    A row for each step and thing made, with `COLUMNS` and `detector`; memory is the largest.
    """
    entries = [
        (key.step, what, images, seconds, made, *(product.about.get(name) for name in MEMORY))
        for key, (product, made) in store.used.items()
        for what, images, seconds in _entries(key, product)
    ]
    names = ["step", "what", "images", "seconds", "made_by_this_run", *MEMORY]
    costs = pd.DataFrame(entries, columns=names).astype(dict.fromkeys(MEMORY, float))
    how = {"images": "sum", "seconds": "sum", "made_by_this_run": "any"} | dict.fromkeys(
        MEMORY, "max"
    )
    costs = costs.groupby(["step", "what"], sort=False, as_index=False).agg(how)
    known = (costs["images"] > 0) & (costs["seconds"] > 0)
    costs["images_per_second"] = (costs["images"] / costs["seconds"]).where(known)
    rows = costs["step"].isin(OF_DETECTORS)
    costs["detector"] = costs["what"].str.partition("@")[0].where(rows, "")
    passes = costs[costs["step"] == "passes"].set_index("what")["images_per_second"]
    for name, detector in detectors.items():
        scoring = (costs["detector"] == name) & costs["step"].isin(SCORING)
        if detector is None or not scoring.any():
            continue
        rate = passes.get(passes_name(passes_settings(detector)))
        alone = costs.loc[scoring, "images_per_second"]
        costs.loc[scoring, "with_passes_per_second"] = 1 / (1 / alone + 1 / rate) if rate else None
        if (count := detector.pass_count) and not count.by_class:
            costs.loc[scoring, "forward_passes"] = count.forward
            costs.loc[scoring, "backward_passes"] = count.backward
    return costs.reindex(columns=[*COLUMNS, "detector"])


def write_costs(costs: pd.DataFrame, path: Path) -> None:
    """Write `costs.csv`: images, seconds, speed, memory, passes, and who made it."""
    shapes = {
        **dict.fromkeys(("images", "forward_passes", "backward_passes"), "{:.0f}"),
        **dict.fromkeys(("images_per_second", "with_passes_per_second"), "{:.4g}"),
        **dict.fromkeys(MEMORY, "{:.1f}"),
        "seconds": "{:.3f}",
    }
    text = costs[list(COLUMNS)].assign(images=costs["images"].where(costs["images"] > 0))
    for name, shape in shapes.items():
        text[name] = ["" if pd.isna(value) else shape.format(value) for value in text[name]]
    text["made_by_this_run"] = text["made_by_this_run"].map({True: "yes", False: "no"})
    text.to_csv(path, index=False, lineterminator="\n")


def costs_table(costs: pd.DataFrame, detectors: Detectors) -> str:
    """Return `costs.md`: speed, memory and passes of each detector; arguments as above."""
    lines = []
    for name, detector in detectors.items():
        own = costs[costs["detector"] == name]
        passes = passes_name(passes_settings(detector)) if detector is not None else None
        timed = costs[(costs["step"] == "passes") & (costs["what"] == passes)]
        memory = pd.concat([own, timed])[list(MEMORY)].max()
        scoring = own[own["step"].isin(SCORING)]
        order = scoring["step"].map(SCORING.index).sort_values(kind="stable").index
        speed = ("images_per_second", "with_passes_per_second")
        rates = [scoring.loc[order[0], column] if len(order) else None for column in speed]
        count = detector and detector.pass_count
        lines.append((
            name,
            *((f"{n}{' + (classes - 1)' * count.by_class}" for n in (count.forward, count.backward))
              if count else ("", "")),
            *("" if pd.isna(rate) else f"{rate:,.0f}" for rate in rates),
            *("" if pd.isna(peak) else f"{peak:.1f}" for peak in memory),
        ))  # fmt: skip
    header = (
        *("detector", "forward", "backward", "scoring, images/s", "with passes, images/s"),
        *("peak memory, MiB", "on the device, MiB"),
    )
    return f"{HEAD}\n\n{markdown(TextTable(header, tuple(lines)).without_empty_columns())}\n"


def read_milliseconds(path: Path) -> dict[str, float]:
    """Return what an image takes with all passes, by detector, from a `costs.csv`.

    Raises:
        GradbenchError: if it cannot be read.
    """
    try:
        text = io.StringIO(read_bytes(path, LARGEST).decode("utf-8"))
        costs = pd.read_csv(text, dtype=str, keep_default_na=False)
        costs = costs[costs["step"].isin(SCORING) & (costs["with_passes_per_second"] != "")]
        rate = costs["with_passes_per_second"].astype(float)
        if not rate.between(1e-9, 1e15).all():
            raise ValueError("a speed that is no number of images per second")
        name = costs["what"].str.partition("@")[0]
    except (ValueError, KeyError, AttributeError) as fault:  # pandas' own faults are ValueErrors
        raise GradbenchError(f"{printable(path)} cannot be read: {printable(fault)}") from fault
    order = costs["step"].map(SCORING.index).sort_values(kind="stable").index
    return {name[i]: 1000 / rate[i] for i in reversed(order)}


def passes_name(settings: Mapping[str, Any]) -> str:
    """Return the passes of a detector as one name among the costs.

    >>> passes_name({"reads": ["logits"], "perturbed": [["logits", {}, [0.1]]]})
    'logits + logits after 1 step'
    """
    perturbed = [
        f"{source} after {len(magnitudes)} step{'s' * (len(magnitudes) > 1)}"
        for source, _, magnitudes in settings.get("perturbed", ())
    ]
    return " + ".join([*sorted(settings.get("reads", ())), *perturbed])


def _entries(key: Key, product: Product) -> Iterator[tuple[str, int, float]]:
    """Yield what was made, from how many images, in how many seconds; nothing for a shared pass."""
    about, config = product.about, key.config
    if key.step == "passes":
        yield passes_name(config), about["images"], about["pass_seconds"]
    elif key.step == "outputs":
        # Outputs of one pass share its time, which is counted with the first of them.
        if config["output"] == about["pass"][0]:
            kinds = (n if "norms" in n else n.split("/")[0] for n in about["pass"])
            yield " + ".join(dict.fromkeys(kinds)), about["images"], about["pass_seconds"]
    else:
        name = ""
        if key.step == "network":
            name = f"{config['network']['_target_'].rpartition('.')[2]} seed {config['seed']}"
        elif key.step in OF_DETECTORS:
            name = about["detector"]
        elif key.step == "learned":
            name = config["output"]
        elif key.step in ("challenge", "perturbed"):
            name = config["family" if key.step == "challenge" else "source"]
        seconds = about.get("training_seconds", about["seconds"])
        yield name, about.get("images", 0), seconds - about.get("seconds_of_passes", 0)
