"""Parses command lines with argparse; refuses words in one sentence with the valid choices."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from gradbench.errors import GradbenchError, printable, unknown

INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")


class Parser(argparse.ArgumentParser):
    """An argument parser whose faults are GradbenchErrors that name the nearest valid choices."""

    def __init__(self, **settings: Any):
        form = argparse.RawDescriptionHelpFormatter
        super().__init__(formatter_class=form, allow_abbrev=False, **settings)

    def error(self, message: str):
        """Raise argparse's complaint as a GradbenchError."""
        lacking = re.match(r"argument (-[^/:]+)\S*: expected (one|at least one) argument", message)
        if lacking:
            choices = self._option_string_actions[lacking[1]].choices or ["a value"]
            message = f"{lacking[1]}: {' or '.join(map(str, choices))} must follow"
        raise GradbenchError(f"{self.prog.removeprefix('gradbench ')} {message}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            kind = (action.option_strings or [str(action.metavar).lower()])[0]
            command = self.prog.removeprefix("gradbench").strip()
            raise unknown(f"{kind} of {command}" if command else kind, value, action.choices)

    def candidates(self, command: str | None = None) -> list[str]:
        """Return words that may come next, for a sub-command or for this parser's own words."""
        choices = [a.choices for a in self._actions if a.choices and not a.option_strings]
        if command is None:
            return [*map(str, choices[0])] if choices else self.options()
        return choices[0][command].candidates() if command in choices[0] else []

    def options(self) -> list[str]:
        """Return the names of all options."""
        return [name for action in self._actions for name in action.option_strings]


def parse(parser: Parser, words: Sequence[str]) -> argparse.Namespace:
    """Parse a command line; options may stand anywhere among the other words.

    Raises:
        GradbenchError: for an unknown option, or a word too many.
    """
    args, more = parser.parse_known_args(words)
    for word in more:
        if word.startswith("-"):
            kind = f"option of {args.parser.prog.removeprefix('gradbench ')}"
            raise unknown(kind, word.partition("=")[0], args.parser.options())
    # argparse takes one run of words for `words`, and leaves those behind an option
    if more and not hasattr(args, "words"):
        raise GradbenchError(f"{args.command} takes no {printable(more[0])}")
    if more:
        args.words = [*args.words, *more]
    return args


def add_config_dir(parser: Parser) -> None:
    """Add the option that names folders of the user's own configuration files."""
    parser.add_argument(
        *("--config-dir", "-cd"), metavar="DIR", action="append", default=[], type=_config_dir,
        help="folder of configuration files of your own; may be repeated",
    )  # fmt: skip


def add_overrides(parser: Parser) -> None:
    """Add settings of a run (`key=value`), and Hydra's options that look at them."""
    parser.add_argument("words", metavar="key=value", nargs="*", help="settings of a run")
    add_config_dir(parser)
    parser.add_argument(
        "--cfg", "-c", choices=("job", "hydra", "all"), help="print the configuration, run nothing"
    )
    parser.add_argument("--resolve", action="store_true", help="with its references resolved")
    parser.add_argument("--package", "-p", metavar="NAME", help="print this section alone")
    parser.add_argument(
        "--info", "-i", nargs="?", const="all", metavar="WHAT",
        help=f"print how the configuration came about, run nothing: {', '.join(INFO)}",
    )  # fmt: skip


def split_words(
    words: Iterable[str], keys: Sequence[str], command: str | None = None
) -> tuple[list[str], dict[str, str], list[str]]:
    """Return the words that are no settings, the settings among `keys`, and the other settings.

    Raises:
        GradbenchError: for another setting where a command is named, which takes none.
    """
    names, settings, others = [], {}, []
    for word in words:
        key, equals, value = word.partition("=")
        if equals and key in keys:
            settings[key] = value
        elif not equals or (command and os.path.lexists(word)):
            names.append(word)
        elif command:
            raise unknown(f"setting of {command}", key, keys)
        else:
            others.append(word)
    return names, settings, others


def with_dirs(words: Iterable[str], dirs: Iterable[Path]) -> list[str]:
    """Return the words of a command with the options that name the user's folders in front."""
    return [*(f"--config-dir={folder}" for folder in dirs), *words]


def existing_folders(key: str, text: str) -> list[Path]:
    """Return the folders of a comma list.

    Raises:
        GradbenchError: if one is not there.
    """
    folders = [Path(name).expanduser() for name in text.split(",") if name]
    for folder in folders:
        if not folder.is_dir():
            raise GradbenchError(f"{key}={folder}: there is no such folder")
    return folders


def data_root(text: str | None) -> Path:
    """Return the folder of all data sets: data.root=DIR, GRADBENCH_DATA, or data."""
    return Path(text or os.environ.get("GRADBENCH_DATA") or "data").expanduser()


def warn_of_replaced_members(dirs: Iterable[Path]) -> None:
    """Name the user's own members that take the place of built-in ones, on standard error."""
    from gradbench.config import replaced_members

    if names := replaced_members(dirs):
        text = "your own files take the place of built-in ones"
        print(f"gradbench: {text}: {', '.join(map(printable, names))}", file=sys.stderr)


def _config_dir(text: str) -> Path:
    if not Path(text).is_dir():
        raise GradbenchError(f"--config-dir {text}: there is no such folder")
    return Path(text)
