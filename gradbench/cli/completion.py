"""Shell completion: Hydra's own, behind the first word of the command line."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence


def complete(words: list[str]) -> None:
    """Answer `-sc install=bash`, `-sc uninstall=bash` and the shell's `-sc query=bash`."""
    from gradbench.cli.words import COMMANDS

    line = os.environ.get("COMP_LINE", "")
    asked = line.split()[1:]
    if line and (not asked or (len(asked) == 1 and not line.endswith(" "))):
        print(" ".join(name for name in COMMANDS if name.startswith("".join(asked))))
        return
    if asked and asked[0] not in ("run", "sweep", "plan"):
        before, begun = (asked, "") if line.endswith(" ") else (asked[:-1], asked[-1])
        print(" ".join(word for word in _next(before) if word.startswith(begun)))
        return
    if asked:
        # Hydra knows no commands: it sees the line without the first word
        os.environ["COMP_LINE"] = line.replace(f" {asked[0]}", "", 1)
    sys.argv = ["gradbench", *words]
    import hydra

    from gradbench.config import builtin_dir

    hydra.main(version_base="1.3", config_path=str(builtin_dir()), config_name="config")(_task)()


def _next(words: Sequence[str]) -> Sequence[str]:
    """Return what may follow the words of a command that Hydra does not know."""
    from gradbench.cli.data_command import ACTIONS
    from gradbench.cli.list_command import KINDS
    from gradbench.config import group_files

    if words[0] == "data" and len(words) > 1:
        return [] if words[1] == "list" else [*group_files("dataset")]
    if words[0] == "tables":
        return ["list", *group_files("table"), "--all", "--plan", "--run"]
    if words[0] == "score":
        return _score(words[1:])
    if words[0] in ("show", "report"):
        return _runs(words[0])
    return {"list": [*KINDS], "store": ["ls", "verify", "prune"], "data": ACTIONS}.get(words[0], [])


def _score(before: Sequence[str]) -> Sequence[str]:
    """Return runs for the first word of `score`, then its options; the shell adds files."""
    from gradbench.cli.score_command import OPTIONS

    return OPTIONS if before else _runs("score")


def _runs(command: str) -> Sequence[str]:
    """Return the finished runs here, and what else may follow the command."""
    from gradbench.cli.show_command import runs

    more = {"show": ["--all"], "report": ["results=", "out="]}.get(command, [])
    return [*(str(folder) for folder in runs()), *more]


def _task(cfg) -> None:
    """Stand where Hydra wants a function; completion never calls it."""
