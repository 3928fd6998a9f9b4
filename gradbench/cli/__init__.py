"""The command `gradbench`: one word, then what it needs. Heavy libraries are imported late."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from gradbench import __version__
from gradbench.cli.folders import leave_out_here
from gradbench.cli.words import COMMANDS, braced, config_dirs, fail, of_the_machine
from gradbench.errors import GradbenchError, unknown

HELP = """\
gradbench: can a network's gradients tell that an input is not what it was trained on?

  gradbench run experiment=quickstart          a minute, on embedded images
  gradbench run experiment=ood_cifar10_far data.root=DIR
  gradbench run 'challenges=[svhn,fgsm]' 'detectors=[msp,gradient]' 'seeds=[0,1,2]'
  gradbench sweep experiment=quickstart level=1,2,3,4,5

commands
{commands}

`gradbench COMMAND --help` tells more. Settings are Hydra overrides (key=value); --cfg job prints
the whole configuration, --info how it came about, --config-dir DIR adds your own files.
Brackets and braces stand in quotes, since shells have a meaning for them too; a value with one of
= ( [ {{ , in it stands in two pairs of quotes: "out='a=b'".
Exit codes: 0 done, 2 wrong input or a fault (said in one sentence), 1 damage that `store verify`
found, 130 stopped by Ctrl-C.
Shell completion: eval "$(gradbench -sc install=bash)"
"""
BUILDERS = ("run", "sweep", "plan", "list")
"""Commands that build a user's own classes: they find them in the folders of --config-dir."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command and exit: 0 done, 2 wrong input or a fault, 1 damage in the store."""
    words = list(sys.argv[1:] if argv is None else argv)
    if hasattr(sys.stdout, "reconfigure"):  # a terminal may lack signs that names of files hold
        sys.stdout.reconfigure(errors="backslashreplace")
    if argv is None:  # of a program that calls this, the path is its own affair
        leave_out_here()
    try:
        _dispatch(words)
    except GradbenchError as fault:
        fail(fault)
    except KeyboardInterrupt:
        again = "starts again" if words[:1] == ["score"] else "goes on from here"
        print(f"gradbench: stopped; the same command {again}", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as fault:
        if "torch" in sys.modules:  # before that nothing of a user's has run, or memory was short
            from gradbench.support.external import describe_exception, external_line

            if external_line(fault):
                fail(GradbenchError(f"a class from outside {describe_exception(fault)}"))
        if not isinstance(fault, MemoryError | ImportError | OSError | RuntimeError):
            raise
        fail(of_the_machine(fault))


def _dispatch(words: list[str]) -> None:
    if not words or words[0] in ("-h", "--help", "help"):
        print(HELP.format(commands="\n".join(f"  {n:<7}{t}" for n, t in COMMANDS.items())))
        return
    if words[0] in ("-V", "--version"):
        print(f"gradbench {__version__}")
        return
    if words[0] in ("-sc", "--shell-completion", "--shell_completion"):
        from gradbench.cli.completion import complete

        complete(words)
        return
    if words[0] not in COMMANDS:
        raise unknown("command", words[0], COMMANDS)
    if words[0] in BUILDERS:  # classes that a user's YAML names stand beside it
        sys.path += [str(folder.absolute()) for folder in config_dirs(words)]
    module = importlib.import_module(f"gradbench.cli.{words[0]}_command")
    module.main([braced(word) for word in words[1:]])
