"""`gradbench score`: new pictures scored by the network and detectors of a finished run."""

from __future__ import annotations

import signal
import sys
import threading
import warnings
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gradbench.cli.arguments import Parser
from gradbench.cli.show_command import find_run
from gradbench.errors import GradbenchError, printable
from gradbench.support.progress import step

DESCRIPTION = """\
Scores pictures with the network and the detectors that a finished run kept in its model/. Any size
and colours are brought to the network's shape as data sets are; what is transparent is seen on
white, and grey of more than 8 bits is scaled by what the file says.
"""
EPILOG = """\
Pictures in folders end in {suffixes}; other files are counted.

Writes one CSV row a picture:
  file, class, probability   the class that the network names, and its softmax probability
  NAME                       a detector's score, higher = more abnormal
  verdict_NAME               reliable up to the threshold that keeps at least 95 % of the run's
                             hold-out images (clean ones that the network was not trained on,
                             unless what is printed says that it may have been), else abnormal;
                             empty where the run had no hold-out
  note                       why a file could not be read; its other columns are then empty
Bytes of a file name that are no UTF-8 are written like \\xe9.
Text that a spreadsheet would take for a formula begins with an apostrophe.

  gradbench score outputs/quickstart photos
  gradbench score quickstart a.png b.jpg --detector msp,gradient@fgsm --out scores.csv

From Python: gradbench.load(RUN).score(images), with arrays, tensors or paths.
"""


def configure(parser: Parser) -> None:
    """Add the arguments of the command."""
    from gradbench.data.picture import SUFFIXES

    parser.description = DESCRIPTION
    parser.epilog = EPILOG.replace("{suffixes}", " ".join(SUFFIXES))
    add = parser.add_argument
    add("words", nargs="*", metavar="RUN | IMAGES",
        help="the run's folder, or its name under outputs/; then files, or folders that are looked "
        "through with all folders inside, linked ones too, but for hidden files")  # fmt: skip
    add("--detector", metavar="NAME", action="append", type=_value,
        help="which detectors, may be repeated (or a,b); all that learned from no challenge images "
        "without it. Those that did are named after what they were fitted on, gradient@svhn; "
        "gradient alone stands for all of these")  # fmt: skip
    add("--out", metavar="FILE", type=_value,
        help="where to write; scores.csv in the run's folder without it. Earlier scores are "
        "replaced; other files, links and devices never are")  # fmt: skip
    add("--seed", metavar="N", type=_whole("--seed", "write the number of a network, as 0"),
        help="which network, of a run with several; the first without it")  # fmt: skip
    add("--device", metavar="D", type=_value, default="auto", help="auto, cpu, cuda, cuda:1, mps")
    add("--trust", metavar="MODULE", action="append", type=_value, default=[],
        help="build this module's classes too, may be repeated: a run with a network or a detector "
        "of your own needs it (PYTHONPATH=DIR names its folder). Otherwise only classes that "
        "gradbench and torchvision define are built, and nothing in the run's folder is executed",
        )  # fmt: skip
    add("--bits", metavar="N",
        type=_whole("--bits", "write how many bits grey values have, 8 to 16", range(8, 17)),
        help="bits of grey values (8 to 16) in files that hold them in 16 or 32 and do not say",
        )  # fmt: skip


def main(args: Namespace) -> None:
    """Score pictures and write the table."""
    outs = [word.removeprefix("out=") for word in args.words if word.startswith("out=")]
    run, *places = [word for word in args.words if not word.startswith("out=")] or [""]
    if not places:
        raise GradbenchError(
            "score: name a run and the pictures, gradbench score RUN IMAGES ... (files or folders)"
        )
    run = find_run(run)
    out = (outs or [args.out])[-1] or run / "scores.csv"
    with step("loading libraries"):
        from gradbench.backbones.devices import set_exact_arithmetic
        from gradbench.data.files import ignored_files
        from gradbench.predict.pictures import find_pictures
        from gradbench.predict.run_scorer import load
        from gradbench.predict.scores_file import ScoresFile
        from gradbench.support.memory import keep_freed_memory

    set_exact_arithmetic()
    keep_freed_memory()
    warnings.filterwarnings("ignore", module=r"PIL\.")  # what cannot be read is listed
    ignored: Counter[str] = Counter()
    with step("looking for pictures"):
        paths = find_pictures(places, ignored)
    # before any work, so that a place that cannot be written is refused at once
    with _exit_on_signals(), ScoresFile(out) as file:
        with step(f"loading network and detectors of {printable(run)}"):
            scorer = load(run, args.seed, _split(args.trust), args.device)
            names = scorer.choose(None if args.detector is None else _split(args.detector))
        summary = file.write(scorer.stream(paths, names, args.bits))
    print(_summarise(scorer, names, summary))
    if ignored:
        print(ignored_files(ignored))


def _split(values: list[str]) -> list[str]:
    """Return all values of an option, comma lists taken apart."""
    return [part for value in values for part in value.split(",") if part]


def _value(text: str) -> str:
    if not text:
        raise GradbenchError("score: a value must follow an option")
    return text


def _whole(option: str, advice: str, choices: range | None = None) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isdecimal() or (choices is not None and int(text) not in choices):
            raise GradbenchError(f"{option} {text}: {advice}")
        return int(text)

    return read


@contextmanager
def _exit_on_signals() -> Iterator[None]:
    """Leave the block by SystemExit on signals that would end the process on the spot.

    So half-written files go. What the process ignores (SIGHUP under nohup) stays ignored; outside
    the main thread nothing changes.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:
                before[number] = signal.signal(number, lambda got, _: sys.exit(128 + got))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _summarise(scorer, names: list[str], summary) -> str:
    """Return what was done as text: counts by detector, unreadable files."""
    about, read = scorer.saved.about, summary.pictures - summary.unreadable
    width = max(map(len, names))
    count = f"{summary.pictures} picture{'s' * (summary.pictures != 1)}"
    lines = [f"{count}, network {scorer.saved.folder} ({about['in_dist']} in)"]
    older = "" if "hold_out" in about else ", if the network was not trained on them: not recorded"
    for name in names:
        if scorer.thresholds[name] is None:
            lines.append(f"  {name:<{width}}  no verdicts: the run had no hold-out")
            continue
        threshold = scorer.saved.entries[name]["threshold"]
        note = f", {threshold['note']}" if threshold["note"] else ""
        lines.append(
            f"  {name:<{width}}  {summary.abnormal[name]} of {read} abnormal: above "
            f"{threshold['value']:.6g}, which keeps {about['kept']} % of {threshold['images']} "
            f"hold-out images{note}{older}"
        )
    if summary.unreadable:
        lines.append(f"{summary.unreadable} of {summary.pictures} files cannot be read:")
        lines += [f"  {path}: {reason}" for path, reason in summary.reasons]
        if summary.unreadable > len(summary.reasons):
            lines.append("  and others, see the column note")
    return "\n".join(map(printable, [*lines, f"scores: {summary.path}"]))
