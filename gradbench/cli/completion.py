"""Shell completion: Hydra's own for settings of runs, behind the first word of the command line."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from gradbench.cli.arguments import Parser

HYDRA = ("run", "sweep", "plan")
"""Commands that take the settings of a run alone."""


def complete(words: list[str], build_parser: Callable[[Sequence[str]], Parser]) -> None:
    """Answer `-sc install=bash`, `-sc uninstall=bash` and the shell's `-sc query=bash`.

    Args:
        words: the command line.
        build_parser: makes the parser that knows the command of some words.
    """
    line = os.environ.get("COMP_LINE", "")
    typed = line.split()[1:]
    before, begun = (typed, "") if line.endswith(" ") else (typed[:-1], "".join(typed[-1:]))
    if line and (not before or before[0] not in HYDRA):
        print(
            " ".join(word for word in _next(before, build_parser(before)) if word.startswith(begun))
        )
        return
    if before:
        # Hydra knows no commands: it sees the line without the first word
        os.environ["COMP_LINE"] = line.replace(f" {before[0]}", "", 1)
    from gradbench.config import hydra_session

    with hydra_session() as hydra:
        hydra.shell_completion("config", words[1:])


def _next(before: Sequence[str], parser: Parser) -> Sequence[str]:
    """Return the words that may follow those of a command which is not Hydra's."""
    from gradbench.config import group_files

    if not before:
        return parser.candidates()
    command, *rest = before
    if command == "data" and rest:
        return [] if rest[0] == "list" else [*group_files("dataset")]
    if command in ("show", "report", "score") and not (command == "score" and rest):
        from gradbench.cli.show_command import finished_runs

        more = {"show": ["--all"], "report": ["results=", "out="]}.get(command, [])
        return [*map(str, finished_runs()), *more]
    if command == "list":
        from gradbench.cli.list_command import KINDS

        return [*KINDS]
    if command == "tables":
        return ["list", *group_files("table"), "--all", "--plan", "--run"]
    return parser.candidates(command)
