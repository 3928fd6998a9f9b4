"""The command `gradbench`: a sub-parser and a file for each command.

Heavy libraries are imported inside the commands.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from gradbench import __version__
from gradbench.cli.arguments import Parser, parse
from gradbench.cli.faults import as_error
from gradbench.errors import printable

COMMANDS = {
    "run": "carry out an experiment: train, challenge, read gradients, detect, measure",
    "sweep": "run every combination of comma lists (Hydra multirun, any launcher)",
    "plan": "the steps of a run, which of them are in the store, estimated time",
    "list": "backbones, datasets, challenges, outputs, detectors, protocols, experiments",
    "data": "images: list, fetch, verify, show (pictures of sets and challenges)",
    "show": "the tables of a finished run",
    "tables": "the papers' tables: published numbers beside those of finished runs",
    "report": "finished runs as one HTML file: tables, figures, controls, how to repeat them",
    "score": "new pictures by the network and detectors of a finished run, as CSV",
    "store": "ls, verify or prune the kept products of all runs",
}
BUILDERS = ("run", "sweep", "plan", "list")
"""Commands that build a user's own classes: they find them in the folders of --config-dir."""
MATPLOTLIBRC = "matplotlibrc"
"""A file that matplotlib reads from the working folder when it is imported."""

DESCRIPTION = """\
can a network's gradients tell that an input is not what it was trained on?

  gradbench run experiment=quickstart          a minute, on embedded images
  gradbench run experiment=ood_cifar10_far data.root=DIR
  gradbench run 'challenges=[svhn,fgsm]' 'detectors=[msp,gradient]' 'seeds=[0,1,2]'
  gradbench sweep experiment=quickstart level=1,2,3,4,5
"""
EPILOG = """\
`gradbench COMMAND --help` says more. Settings are Hydra overrides (key=value).
Brackets and braces stand in quotes, since shells have a meaning for them too; a value with one of
= ( [ { , in it stands in two pairs of quotes: "out='a=b'".
Exit codes: 0 done, 2 wrong input or a fault (said in one sentence), 1 damage that `store verify`
found, 130 stopped by Ctrl-C.
Shell completion: eval "$(gradbench -sc install=bash)"
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command; exit with 2 for wrong input or a fault, with 1 for damage in the store."""
    words = list(sys.argv[1:] if argv is None else argv)
    if hasattr(sys.stdout, "reconfigure"):  # a terminal may lack characters of file names
        sys.stdout.reconfigure(errors="backslashreplace")
    if argv is None:  # a program that calls this minds its own path
        leave_out_working_folder()
    try:
        _dispatch(words)
    except KeyboardInterrupt:
        again = "starts again" if words[:1] == ["score"] else "goes on from here"
        print(f"gradbench: stopped; the same command {again}", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as fault:
        print(f"gradbench: {printable(str(as_error(fault)))}", file=sys.stderr)
        sys.exit(2)


def _dispatch(words: list[str]) -> None:
    if words[:1] in (["-sc"], ["--shell-completion"], ["--shell_completion"]):
        from gradbench.cli.completion import complete

        complete(words, build_parser)
        return
    parser = build_parser(words)
    if words in ([], ["help"]):
        parser.print_help()
        return
    args = parse(parser, words)
    if args.command in BUILDERS:  # classes that a user's YAML names stand beside it
        sys.path += [str(folder.absolute()) for folder in args.config_dir]
    args.main(args)


def build_parser(words: Sequence[str]) -> Parser:
    """Return the parser of all commands; only that of the first word knows its arguments."""
    parser = Parser(prog="gradbench", description=DESCRIPTION, epilog=EPILOG)
    parser.add_argument("-V", "--version", action="version", version=f"gradbench {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for name, summary in COMMANDS.items():
        command = commands.add_parser(name, help=summary)
        if words[:1] == [name]:  # no other command's module needs to be imported
            module = importlib.import_module(f"gradbench.cli.{name}_command")
            command.set_defaults(main=module.main, parser=command)
            module.configure(command)
    return parser


def leave_out_working_folder() -> None:
    """Take the working folder, which may be a stranger's, off the places of imports.

    Python itself puts it there for `python -m` and `python -c`, and for an empty entry of
    PYTHONPATH. It stays where PYTHONPATH names it, where it is installed, and where gradbench
    itself stands. Processes that are started from here leave it out too.
    """
    os.environ.setdefault("PYTHONSAFEPATH", "1")
    try:
        here = os.getcwd()
    except FileNotFoundError:  # removed meanwhile: nothing can be imported from it
        return
    named = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    kept = {str(Path(__file__).parents[2]), *(os.path.abspath(one) for one in named if one)}
    first = 1 + len(named)  # entries that do not come from an installation
    sys.path[:] = [
        entry
        for place, entry in enumerate(sys.path)
        if entry and (place >= first or os.path.abspath(entry) != here or here in kept)
    ]
    if os.path.lexists(MATPLOTLIBRC):
        with contextlib.chdir(Path(__file__).parent):
            import matplotlib  # noqa: F401
