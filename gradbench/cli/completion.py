"""Shell completion: Hydra's own for settings of runs, behind the first word of the command line."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from gradbench.cli.arguments import Parser


def complete(words: list[str], build_parser: Callable[[Sequence[str]], Parser]) -> None:
    """Answer `-sc install=bash`, `-sc uninstall=bash` and the shell's `-sc query=bash`."""
    from gradbench.config import hydra_session

    line = os.environ.get("COMP_LINE", "")
    typed = line.split()[1:]
    before, begun = (typed, "") if line.endswith(" ") else (typed[:-1], "".join(typed[-1:]))
    if line and (not before or before[0] not in ("run", "sweep", "plan")):
        candidates = _candidates(before, build_parser(before))
        print(" ".join(word for word in candidates if word.startswith(begun)))
        return
    if before:  # Hydra knows no commands: it sees the line without the first word
        os.environ["COMP_LINE"] = line.replace(f" {before[0]}", "", 1)
    with hydra_session() as hydra:
        hydra.shell_completion("config", words[1:])


def _candidates(before: Sequence[str], parser: Parser) -> Sequence[str]:
    """Return the words that may follow those of a command which is not Hydra's."""
    from gradbench.cli.list_command import KINDS
    from gradbench.cli.show_command import finished_runs
    from gradbench.config import group_files

    if not before:
        return parser.candidates()
    command, *rest = before
    if command == "data" and rest:
        return [] if rest[0] == "list" else [*group_files("dataset")]
    if command in ("show", "report", "score") and not (command == "score" and rest):
        options = {"show": ["--all"], "report": ["results=", "out="]}.get(command, [])
        return [*map(str, finished_runs()), *options]
    if command == "list":
        return [*KINDS]
    if command == "tables":
        return ["list", *group_files("table"), "--all", "--plan", "--run"]
    return parser.candidates(command)
