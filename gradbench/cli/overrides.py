"""Checks the words of a command line before Hydra takes them."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate, pairwise
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from hydra.errors import HydraException

from gradbench.cli.complaints import OPEN, OPTIONAL, first_line, settings
from gradbench.cli.words import OPTIONS, OPTIONS_WITH_VALUE, config_dirs
from gradbench.config import CHOSEN, group_files
from gradbench.errors import GradbenchError, printable, unknown
from gradbench.support.text import format_value

PLURALS = {"challenge": "challenges", "detector": "detectors"}
FOLDERS = ("out", "store", "data.root")
DEEPEST = 30
"""Brackets in each other; Hydra takes no more than some hundred."""
SECTIONS = ("training", "data", "evaluation", "controls", "model")


def check_overrides(words: Iterable[str], multirun: bool) -> None:
    """Refuse comma lists outside a sweep, and groups whose members stand under a plural key."""
    parser = OverridesParser.create()
    words = list(words)
    check_options(words)
    for before, text in pairwise(["", *words]):
        if text.startswith("-") or before in OPTIONS_WITH_VALUE:
            continue
        if text.startswith("~"):
            raise GradbenchError(f"{text}: settings can be changed, not taken away")
        if not text.partition("=")[0] or "=" not in text:
            raise GradbenchError(f"'{text}' is no setting: write key=value, for example seed=1")
        if max(accumulate((c in "[{") - (c in "]}") for c in text)) > DEEPEST:
            raise GradbenchError(
                f"{format_value(text)}: more than {DEEPEST} brackets in each other"
            )
        try:
            override = parser.parse_override(text)
        except HydraException as fault:
            quoted = text.replace('"', r"\"").replace("=", "='", 1)
            raise GradbenchError(
                f"'{format_value(text)}' cannot be read ({first_line(fault)}): a value with one of "
                f'= ( [ {{ , in it stands in two pairs of quotes, "{printable(quoted)[:300]}\'"'
            ) from fault
        key = override.key_or_group
        if key.split("/")[0] == "hydra" and not isinstance(override.value(), str | list | None):
            raise GradbenchError(
                f"{key}={format_value(override.value())}: write the name of a member"
            )
        if override.is_add() and key.split(".")[0] not in OPEN:
            raise unknown("setting", key, settings(words))
        if key in CHOSEN and not override.is_sweep_override():
            check_choice(override, text, words)
        if override.value_type == ValueType.GLOB_CHOICE_SWEEP and key not in CHOSEN:
            raise GradbenchError(
                f"{text}: glob chooses among the members of {', '.join(CHOSEN[:4])}; write the "
                f"values of {key} one by one"
            )
        if key in FOLDERS and override.value() in (None, ""):
            raise GradbenchError(f"{text}: name a folder")
        if key in SECTIONS and not isinstance(override.value(), dict):
            raise GradbenchError(f"{text}: {key} is a section, write {key}.NAME=value")
        if key in PLURALS:
            raise GradbenchError(
                f"{text}: {key}s are listed under the plural key, write "
                f"'{PLURALS[key]}=[{text.split('=', 1)[-1]}]'"
            )
        if key == "launcher" and not multirun and override.value() is not None:
            raise GradbenchError(f"{text}: a launcher carries out the jobs of `gradbench sweep`")
        if override.is_sweep_override() and not multirun:
            plural = key if key.endswith("s") else f"{key}s"
            values = text.split("=", 1)[1]
            inside = f"'{plural}=[{values}]'" if key in ("seed", "level") else f"{key}=VALUE"
            raise GradbenchError(
                f"{text} is a list for a sweep: write {inside} to do it in one run, or "
                f"`gradbench sweep {text}` to make a run of each"
            )


def check_options(words: Iterable[str]) -> None:
    """Refuse options that there are not, or that lack a value, with the valid ones."""
    words = list(words)
    for place, word in enumerate(words):
        option, equals, value = word.partition("=")
        if not word.startswith("-") or (place and words[place - 1] in OPTIONS_WITH_VALUE):
            continue
        if option not in OPTIONS:
            raise unknown("option", word, OPTIONS)
        if option not in OPTIONS_WITH_VALUE:
            continue
        value = value if equals else "".join(words[place + 1 : place + 2])
        choices = OPTIONS_WITH_VALUE[option]
        if not value or (choices and value not in choices):
            due = " or ".join(choices) or "a value"
            raise GradbenchError(f"{option} {printable(value)}".strip() + f": {due} must follow")
    given = {word.partition("=")[0] for word in words}
    if given & {"--resolve", "--package", "-p"} and not given & {"--cfg", "-c"}:
        raise GradbenchError("--resolve and --package change what --cfg job prints: give that too")


def check_choice(override: Override, text: str, words: Iterable[str]) -> None:
    """Refuse what is no member of a group.

    Raises:
        GradbenchError: naming the valid ones.
    """
    group, name = override.key_or_group, override.value()
    if name in (None, "") and group in OPTIONAL:
        raise GradbenchError(f"{text}: leave it out for no {group}")
    if name in (None, ""):
        raise GradbenchError(f"{text}: name a {group}, `gradbench list {group}s` tells all")
    files = group_files(group, config_dirs(words))
    if group != "launcher" and (isinstance(name, bool | list | dict) or str(name) not in files):
        raise unknown(group, text.partition("=")[2], files)


def at_home(word: str) -> str:
    """Return a setting of a folder with `~` written out: not every shell does it after `=`.

    >>> at_home("seed=1")
    'seed=1'
    """
    key, _, path = word.partition("=")
    return f"{key}={Path(path).expanduser()}" if key in FOLDERS and path[:1] == "~" else word
