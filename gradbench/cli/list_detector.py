"""`gradbench list detector=NAME`: where a detector comes from, what it sees and takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from gradbench.config import expand
from gradbench.errors import printable
from gradbench.methods.base import Detector, PassCount
from gradbench.methods.checked import check_declared
from gradbench.outputs.catalogue import OutputCatalogue
from gradbench.report.table import SUPERVISION
from gradbench.support.instantiate import instantiate


def describe(names: Sequence[str], dirs: Sequence[Path] = ()) -> Iterator[str]:
    """Yield a paragraph for every detector, suites unfolded.

    Raises:
        GradbenchError: for an unknown one, or one that cannot be built.
    """
    for name, content in expand("detector", list(dict.fromkeys(names)), dirs):
        detector = instantiate("detector", name, content, base=Detector)
        check_declared(name, detector, OutputCatalogue(dirs))
        lines = {"what": content.get("description"), **_origin(detector), **_needs(detector)}
        told = [printable(f"  {key:<12}  {value}") for key, value in lines.items() if value]
        yield "\n".join([name, *told])


def _origin(detector: Detector) -> dict[str, str]:
    """Return the paper, and whether the method is its own."""
    info = getattr(detector, "info", None)
    if info is None:
        return {"paper": "not named"}
    own = {"method": "gradbench's own, not in the paper that it is built on"} if info.own else {}
    return own | {
        "built on" if info.own else "paper": info.title,
        "venue": info.venue,
        "url": info.url,
        "code": info.code or "none public",
    }


def _needs(detector: Detector) -> dict[str, str]:
    """Return what it sees, reads and takes."""
    moved = [f"{p.source} after a step of the pixels" for p in detector.perturbed_passes.values()]
    return {
        "supervision": f"{detector.supervision}: sees {SUPERVISION[detector.supervision]}",
        "clean images": detector.clean_seen,
        "reads": ", ".join([*detector.reads, *moved]),
        "passes": _passes(detector),
    }


def _passes(detector: Detector) -> str:
    """Return the passes through f that scoring an image takes, before a step is chosen."""
    told = str(detector.pass_count)
    chosen = [
        f for f in detector.planned_passes(("layer", "other")) if f.part == "measure" and f.chosen
    ]
    if not chosen:
        return told
    each = " for each feature layer" if len(chosen) > 1 else ""
    return f"{told}; where it chooses a step {PassCount(2, 1)}{each}"
