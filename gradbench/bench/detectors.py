"""`gradbench bench detectors`: how long fits and scores take, outputs of f being at hand."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from gradbench.bench.settings import DEFAULT_OUT, Parser, add_condition, condition, positive
from gradbench.bench.table import aligned
from gradbench.errors import GradbenchError, unknown
from gradbench.support.progress import Progress

if TYPE_CHECKING:
    from gradbench.bench.drawn_outputs import Drawn

SUM = "all of them"
COLUMNS = (
    *("detector", "supervision", "fits", "seconds", "seconds_low", "seconds_high", "cpu_seconds"),
    *("images", "bank", "hold_out", "folds", "rounds", "backbone", "width", "image_size"),
    *("threads", "processor", "cores", "load_average", "gradbench", "python", "torch", "commit"),
    *("changed", "date", "command"),
)
FOLDS = 5
EPILOG = """\
examples
  gradbench bench detectors --width 32 --threads 2
  gradbench bench detectors --detectors knn,lid --images 1000 --bank 5000 --hold-out 1000

Every detector that does not perturb images is fitted and scores all images of both sides, as a run
does it: those that see no challenge once, the others in each of five grouped folds, twins together,
on one thread. Outputs have the names and shapes of those of the network, and the mean and deviation
that they have on tiles of photographs; they are drawn, since no time here depends on what f is.
"""


@dataclass(frozen=True)
class Timed:
    """What one detector took.

    Attributes:
        detector: its name.
        supervision: what it sees of challenges.
        fits: how often it is fitted.
        seconds: of each round.
        cpu_seconds: of all processor cores together: what a busy machine does not change.
    """

    detector: str
    supervision: str
    fits: int
    seconds: tuple[float, ...]
    cpu_seconds: tuple[float, ...]


def main(words: list[str]) -> None:
    """Run the benchmark, print its table and write its CSV file."""
    given = _parser().parse_args(words)
    settings = replace(condition(given), precision="")
    from gradbench.bench import networks, real, record

    try:
        given.out.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise GradbenchError(f"--out {given.out}: {fault.strerror}") from fault
    settings = networks.complete(settings)
    about = record.made_by(("bench", "detectors", *words), os.getloadavg()[0])
    tiles = real.tiles(settings.batch, settings.image_size)
    f, _ = real.make(settings, len(tiles), None, tiles)
    names = choose(given.detectors.split(",") if given.detectors else None, f)
    found = measure(names, f, tiles, (given.images, given.bank, given.hold_out), given.rounds)
    shared = record.made_under(settings, f, about) | {
        "images": given.images,
        "bank": given.bank,
        "hold_out": given.hold_out,
        "folds": FOLDS,
        "rounds": given.rounds,
    }
    rows = [shared | _numbers(one) for one in (*found, _together(found))]
    width = f"-w{settings.width}" if settings.width else ""
    threads = f"{settings.threads}thread{'s' * (settings.threads != 1)}"
    stem = f"detectors-{settings.backbone}{width}-{given.images}images-cpu-{threads}"
    stem += f"-only_{'_'.join(names)}" if given.detectors else ""
    path = given.out / f"{stem.replace(':', '_')}.csv"
    record.write([{c: row.get(c) for c in COLUMNS} for row in rows], path, COLUMNS)
    print(f"seconds for {given.images:,} normal and {given.images:,} abnormal images, outputs at "
          f"hand, on {shared['processor']}")  # fmt: skip
    lines = [(one.detector, f"{median(one.seconds):.2f}", f"{median(one.cpu_seconds):.2f}",
              str(one.fits), one.supervision) for one in (*found, _together(found))]  # fmt: skip
    print(aligned(("detector", "seconds", "of all cores", "fits", "supervision"), lines))
    if shared["load_average"] > (shared["cores"] or 1):
        print(f"the machine is busy (load {shared['load_average']}): see cpu_seconds in the file")
    print(f"written to {path}")


def choose(wanted: Sequence[str] | None, f) -> list[str]:
    """Return the names of detectors to time: those given, or all that do not perturb images.

    Raises:
        GradbenchError: for an unknown one, or one that perturbs images.
    """
    from gradbench.config import group_files, load_member

    members = {n: load_member("detector", n) for n in group_files("detector")}
    there = {n: made(n, c) for n, c in members.items() if "_target_" in c}
    still = [n for n, d in there.items() if not d.planned_passes(f.feature_layers)]
    for name in wanted or ():
        if name not in still:
            raise unknown("detector that does not perturb images", name, still)
    return list(wanted or still)


def made(name: str, content: Mapping):
    """Return a detector of a configuration file."""
    from gradbench.support.instantiate import instantiate

    return instantiate("detector", name, content)


def measure(
    names: Sequence[str], f, tiles, sizes: tuple[int, int, int], rounds: int
) -> list[Timed]:
    """Time every detector, all of them in turn in every round.

    Args:
        names: of the detectors.
        f: the network, whose outputs are drawn.
        tiles: images from which the size of its outputs is taken.
        sizes: images of a side, of the training images, and of the hold-out.
        rounds: measurements of each.
    """
    from gradbench.bench.drawn_outputs import Drawn
    from gradbench.config import load_member
    from gradbench.protocols.base import Grouped

    contents = {name: load_member("detector", name) for name in names}
    drawn = Drawn(f, tiles, sizes, [made(*member) for member in contents.items()])
    folds = Grouped(folds=FOLDS).folds(drawn.groups, drawn.groups)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    with Progress("timing", len(names) * rounds, "measurements") as progress:
        for _ in range(rounds):
            for name, content in contents.items():
                times[name].append(once(partial(made, name, content), drawn, folds))
                progress.advance(1)
    kinds = {name: made(name, content) for name, content in contents.items()}
    return [
        Timed(n, d.supervision, FOLDS if d.learns_from_challenges else 1, *zip(*times[n]))
        for n, d in kinds.items()
    ]


def once(make, drawn: Drawn, folds: Sequence) -> tuple[float, float]:
    """Fit a detector and score both sides with it; return seconds, and those of all cores."""
    from gradbench.methods.fold_scores import CleanOutputs, divide_by_fold, one_thread, score_folds

    detector = make()
    bank, hold_out = drawn.bank(detector), drawn.hold_out(detector)
    normal, abnormal = drawn.sides(detector)
    own = drawn.own(detector) if detector.synthetic else drawn.aside(hold_out)
    begun, busy = time.perf_counter(), time.process_time()
    if detector.learns_from_challenges:
        score_folds(make, normal, abnormal, folds, 0, CleanOutputs(bank, hold_out))
    else:
        with one_thread():
            detector.fit(bank, *own, 0)
            scores = [detector.score(side).double().numpy() for side in (normal, abnormal)]
        divide_by_fold(*scores, folds)
    return time.perf_counter() - begun, time.process_time() - busy


def _together(found: Sequence[Timed]) -> Timed:
    rounds = [zip(*(getattr(one, n) for one in found)) for n in ("seconds", "cpu_seconds")]
    sums = (tuple(map(sum, each)) for each in rounds)
    return Timed(SUM, "", sum(one.fits for one in found), *sums)


def _numbers(one: Timed) -> dict:
    return {
        "detector": one.detector,
        "supervision": one.supervision,
        "fits": one.fits,
        "seconds": median(one.seconds),
        "seconds_low": min(one.seconds),
        "seconds_high": max(one.seconds),
        "cpu_seconds": median(one.cpu_seconds),
    }


def _parser() -> Parser:
    parser = Parser(
        prog="gradbench bench detectors",
        usage="gradbench bench detectors [options]",
        description="Seconds that fit and scores of each detector take, from outputs at hand.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_condition(parser, without=("precision", "device"))
    parser.set_defaults(device="cpu")
    add = parser.add_argument
    add("--detectors", metavar="NAMES", help="separated by commas (all that perturb no image)")
    add("--images", type=positive, default=10_000, metavar="N", help="of each side (10000)")
    add("--bank", type=positive, default=45_000, metavar="N", help="training images (45000)")
    add("--hold-out", type=positive, default=5_000, metavar="N", help="clean ones aside (5000)")
    add("--rounds", type=positive, default=1, metavar="N", help="measurements of each (1)")
    add("--out", type=Path, default=DEFAULT_OUT, metavar="DIR",
        help=f"folder of the CSV file ({DEFAULT_OUT})")  # fmt: skip
    return parser
