"""What the steps of a run took, from the notes of their products."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from gradbench.store import Key, Product, Store

COLUMNS = ("step", "what", "images", "seconds", "images_per_second", "made_by_this_run")


def write_costs(store: Store, path: Path) -> None:
    """Write one line per step and thing made: images, seconds, and whether this run made it.

    Times are of the run that made the product, whenever that was.
    """
    sums: dict[tuple[str, str], list[float]] = {}
    for key, (product, made) in store.used.items():
        for what, images, seconds in _cost(key, product):
            line = sums.setdefault((key.step, what), [0, 0.0, 0])
            line[0] += images
            line[1] += seconds
            line[2] += made
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for (step, what), (images, seconds, made) in sums.items():
            rate = f"{images / seconds:.4g}" if images and seconds else ""
            writer.writerow(
                [step, what, images or "", f"{seconds:.3f}", rate, "yes" if made else "no"]
            )


def _cost(key: Key, product: Product) -> Iterator[tuple[str, int, float]]:
    """Yield what was made, from how many images, in how many seconds; nothing for a shared pass."""
    about = product.about
    if key.step == "outputs":
        # outputs of one pass share its time, which is counted with the first of them
        if key.config["output"] == about["pass"][0]:
            read = dict.fromkeys(n if "norms" in n else n.split("/")[0] for n in about["pass"])
            yield " + ".join(read), about["images"], about["pass_seconds"]
        return
    what = {
        "network": lambda: f"{key.config['network']['_target_'].rsplit('.', 1)[1]} seed "
        f"{key.config['seed']}",
        "challenge": lambda: key.config["family"],
        **{step: lambda: about["detector"] for step in ("scores", "fits", "transfer")},
        "fit": lambda: about["detector"],
        "image_scores": lambda: about["detector"],
        "perturbed": lambda: key.config["source"],
    }.get(key.step, lambda: "")()
    seconds = about.get("training_seconds", about["seconds"]) - about.get("seconds_of_passes", 0)
    yield what, about.get("images", 0), seconds
