"""What the class of a detector declares, checked before any work."""

from __future__ import annotations

from collections.abc import Sequence

from gradbench.errors import Faulty, GradbenchError, unknown
from gradbench.methods.base import GIVEN, SUPERVISION, Detector, Info
from gradbench.outputs.readers import check
from gradbench.support.calling import calling


def check_declared(name: str, detector: Detector) -> None:
    """Check what the class of a detector declares.

    Raises:
        Faulty: naming the declaration, and what is valid.
    """
    start = f"detector {name}: {type(detector).__qualname__}"
    if not isinstance(detector, Detector):
        raise Faulty(f"{start} is not derived from gradbench.methods.base.Detector")
    if not isinstance(getattr(detector, "info", None), Info):
        raise Faulty(f"{start}.info is missing: Info(title, venue, url) names the paper")
    supervision = getattr(detector, "supervision", None)
    if supervision not in SUPERVISION:
        raise Faulty(f"{start}: {unknown('supervision', str(supervision), SUPERVISION)}")
    if not hasattr(detector, "reads"):
        raise Faulty(f"{start}.reads is missing: reads = ('logits',) names the outputs it scores")
    for field, given in (("reads", ()), ("bank_reads", GIVEN), ("hold_out_reads", ("labels",))):
        names = getattr(detector, field)
        if isinstance(names, str) or not isinstance(names, Sequence):
            raise Faulty(f"{start}.{field} is {names!r}: write a list of outputs, ('logits',)")
        for output in set(names).difference(given):
            try:
                check(str(output))
            except GradbenchError as fault:
                raise Faulty(f"{start}.{field}: {fault}") from fault
    if bool(detector.synthetic) != (supervision == "synthetic"):
        raise Faulty(f"{start}: supervision = 'synthetic' and `synthetic` challenges go together")
    with calling(start):
        moved = bool(detector.perturbed) or bool(detector.further(("layer",)))
        str(detector.passes), detector.clean_seen, detector.learns_from_challenges
    if not (detector.reads or moved):
        raise Faulty(f"{start}.reads is empty: name the outputs that it scores, ('logits',)")
