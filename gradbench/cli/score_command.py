"""`gradbench score`: new pictures scored by the network and detectors of a finished run."""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import dataclass, field

from gradbench.errors import GradbenchError, printable, unknown
from gradbench.support.progress import step

HELP = """\
gradbench score RUN IMAGES ... [--detector NAME] [--out FILE] [--seed N] [--device D]
                               [--trust MODULE] [--bits N]

Scores pictures with the network and the detectors that a finished run kept in its model/. RUN is
the run's folder, or its name under outputs/. IMAGES are files, or folders that are looked through
with all folders inside, linked ones too, but for hidden files; pictures in them end in
{suffixes}.
Other files are counted. Any size and colours are brought to the network's shape as data sets are;
what is transparent is seen on white, and grey of more than 8 bits is scaled by what the file says.

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

  --detector NAME  which detectors, may be repeated (or a,b). Without it all that learned from no
                   challenge images given to them. Those that did are named after what they were
                   fitted on, gradient@svhn; gradient alone stands for all of these
  --out FILE       where to write; scores.csv in the run's folder without it. Earlier scores are
                   replaced; pictures, other files of a run, links and devices never are
  --seed N         which network, of a run with several; the first without it
  --device D       auto, cpu, cuda, cuda:1, mps
  --trust MODULE   build this module's classes too, may be repeated: a run with a network or a
                   detector of your own needs it (PYTHONPATH=DIR names its folder). Otherwise only
                   classes that gradbench and torchvision define are built, and nothing in the
                   run's folder is executed

  --bits N         bits of grey values (8 to 16) in files that hold them in 16 or 32 and do not say

  gradbench score outputs/quickstart photos
  gradbench score quickstart a.png b.jpg --detector msp,gradient@fgsm --out scores.csv

From Python: gradbench.load(RUN).score(images), with arrays, tensors or paths.
"""

OPTIONS = ("--detector", "--out", "--seed", "--device", "--trust", "--bits")


@dataclass
class _Asked:
    """What the command line asks for; options by name, each with all its values."""

    places: list[str] = field(default_factory=list)
    options: dict[str, list[str]] = field(default_factory=dict)

    def last(self, name: str) -> str | None:
        """Return the last value of an option, None where it was not given."""
        return (self.options.get(name) or [None])[-1]

    def every(self, name: str) -> list[str]:
        """Return all values of an option, comma lists taken apart."""
        return [part for value in self.options.get(name, []) for part in value.split(",") if part]


def main(words: list[str]) -> None:
    """Run the command."""
    if any(word in ("-h", "--help") for word in words):
        from gradbench.data.picture import SUFFIXES

        print(HELP.replace("{suffixes}", " ".join(SUFFIXES)))
        return
    asked = _read(words)
    run, *places = asked.places or [""]
    if not places:
        raise GradbenchError(
            "score: name a run and the pictures, gradbench score RUN IMAGES ... (files or folders)"
        )
    from gradbench.cli.show_command import find as find_run

    run = find_run(run)
    seed = asked.last("--seed")
    if seed is not None and not seed.isdecimal():
        raise GradbenchError(f"--seed {seed}: write the number of a network, for example 0")
    bits = asked.last("--bits")
    if bits is not None and (not bits.isdecimal() or not 8 <= int(bits) <= 16):
        raise GradbenchError(f"--bits {bits}: write how many bits grey values have, 8 to 16")
    out = asked.last("--out") or run / "scores.csv"

    with step("loading libraries"):
        from gradbench.backbones.devices import set_exact_arithmetic
        from gradbench.data.files import ignored_files
        from gradbench.predict.pictures import find_pictures
        from gradbench.predict.run_scorer import load
        from gradbench.predict.scores_file import ScoresFile
        from gradbench.support.memory import keep_freed_memory
        from gradbench.support.signals import exit_on_signals

    set_exact_arithmetic()
    keep_freed_memory()
    warnings.filterwarnings("ignore", module=r"PIL\.")  # what cannot be read is listed
    left: Counter[str] = Counter()
    with step("looking for pictures"):
        paths = find_pictures(places, left)
    with (
        exit_on_signals(),
        ScoresFile(out, paths) as file,
    ):  # an unwritable place is told before any work
        chosen = asked.every("--detector") if "--detector" in asked.options else None
        with step(f"loading network and detectors of {printable(run)}"):
            scorer = load(
                run,
                None if seed is None else int(seed),
                asked.every("--trust"),
                asked.last("--device") or "auto",
            )
            names = scorer.choose(chosen)
        summary = file.write(scorer.stream(paths, names, bits and int(bits)))
    print(_told(scorer, names, summary))
    if left:
        print(ignored_files(left))


def _read(words: list[str]) -> _Asked:
    """Take options and their values off the command line; `out=FILE` is understood too.

    Raises:
        GradbenchError: for an unknown option, or one without value.
    """
    asked, rest = _Asked(), list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            asked.places += rest
            break
        if not word.startswith("--") and not word.startswith("out="):
            if word.startswith("-") and len(word) > 1:
                raise unknown("option of score", word, (*OPTIONS, "--help"))
            asked.places.append(word)
            continue
        name, given, value = word.partition("=")
        name = f"--{name.removeprefix('--')}"
        if name not in OPTIONS:
            raise unknown("option of score", name, (*OPTIONS, "--help"))
        if not given:
            value = rest.pop(0) if rest else ""
        if not value:
            raise GradbenchError(f"score {name}: a value must follow")
        asked.options.setdefault(name, []).append(value)
    return asked


def _told(scorer, names: list[str], summary) -> str:
    """Return what was done as text: counts by detector, unreadable files."""
    about, read = scorer.saved.about, summary.pictures - summary.unreadable
    width = max(map(len, names))
    lines = [f"{summary.pictures} pictures, network {scorer.saved.folder} ({about['in_dist']} in)"]
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
