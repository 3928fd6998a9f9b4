"""Hands a command over to Hydra, and puts Hydra's complaints into one sentence."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from gradbench.cli.words import OPTIONS, OPTIONS_WITH_VALUE, config_dirs, fail, of_the_machine
from gradbench.config import (
    CHOSEN,
    GROUPS,
    builtin_dir,
    check_chosen,
    group_files,
    own_files,
    plain,
    read_member,
)
from gradbench.errors import GradbenchError, unknown
from gradbench.settings import check_settings, every_setting
from gradbench.support.paths import shown

PLURALS = {"challenge": "challenges", "detector": "detectors"}
FOLDERS = ("out", "store", "data.root")
SECTIONS = ("training", "data", "evaluation", "controls", "model")
LAUNCHERS = {
    "joblib": ("hydra-joblib-launcher", "parallel"),
    "submitit_local": ("hydra-submitit-launcher", "slurm"),
    "submitit_slurm": ("hydra-submitit-launcher", "slurm"),
    "ray": ("hydra-ray-launcher", "ray"),
}
"""What a launcher comes with, and the extra of gradbench that installs it."""
OPTIONAL = ("experiment", "launcher")
"""Groups of which a run need not have a member."""
USUAL = {"backbone": "resnet18", "dataset": "cifar10", "protocol": "grouped"}
"""What a run takes where nothing else is chosen."""
OPEN = ("hydra", "backbone", "dataset", "protocol")
"""Sections that take settings which their files do not name (`+backbone.groups=2`)."""


def launch(task: Callable, words: list[str], help_text: str, multirun: bool = False) -> None:
    """Run `task` with the composed configuration, as `hydra.main` does.

    Args:
        task: takes the configuration.
        words: the command line without command.
        help_text: answer to --help.
        multirun: run every combination of comma lists.

    Raises:
        GradbenchError: for overrides that Hydra refuses.
    """
    if any(word in ("-h", "--help") for word in words):
        print(help_text)
        return
    words = [  # a bare --info must not take the next word for its value
        "--info=all" if word == "--info" and (not after or "=" in after) else word
        for word, after in pairwise([*map(at_home, words), ""])
    ]
    check_overrides(words, multirun)
    check_chosen(words, config_dirs(words))
    wanted = task if multirun else _quiet(task)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions come here instead of being printed
    logging.getLogger("hydra").addHandler(logging.NullHandler())  # its faults are told once
    sys.argv = ["gradbench", *(["--multirun"] if multirun else []), *options_first(words)]
    import hydra

    with in_a_sentence(words):
        hydra.main(version_base="1.3", config_path=str(builtin_dir()), config_name="config")(
            wanted
        )()


def options_first(words: list[str]) -> list[str]:
    """Return options with their values before the overrides: argparse takes none in between."""
    options, overrides = [], []
    for before, word in pairwise(["", *words]):
        of_option = word.startswith("-") or before in OPTIONS_WITH_VALUE
        (options if of_option else overrides).append(word)
    return options + overrides


@contextlib.contextmanager
def in_a_sentence(words: list[str]) -> Iterator[None]:
    """Turn an exception of Hydra or OmegaConf into a GradbenchError."""
    try:
        yield
    except (YAMLError, UnicodeDecodeError, RecursionError) as fault:
        raise unreadable(config_dirs(words), fault) from fault
    except (HydraException, OmegaConfBaseException) as fault:
        raise GradbenchError(explain(fault, words)) from fault


def _quiet(task: Callable) -> Callable:
    """Return a task whose faults reach the user as a sentence, without Hydra's line before it."""

    @functools.wraps(task)
    def quiet(cfg) -> None:
        try:
            task(cfg)
        except GradbenchError as fault:
            fail(fault)
        except (MemoryError, ImportError, OSError, RuntimeError) as fault:
            fail(of_the_machine(fault))

    return quiet


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
        try:
            override = parser.parse_override(text)
        except HydraException as fault:
            quoted = text.replace('"', r"\"").replace("=", "='", 1)
            raise GradbenchError(
                f"'{shown(text)}' cannot be read ({_first(fault)}): a value with one of = ( [ {{ , "
                f'in it stands in two pairs of quotes, "{shown(quoted)}\'"'
            ) from fault
        key = override.key_or_group
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


def unreadable(dirs: list[Path], fault: Exception) -> GradbenchError:
    """Return the error for a configuration that cannot be read, which names the user's file."""
    for group in GROUPS:
        for name in own_files(group, dirs):
            try:
                read_member(group, name, dirs)
            except GradbenchError as told:
                if isinstance(told.__cause__, YAMLError | UnicodeDecodeError | OSError):
                    return told
    return GradbenchError(f"the configuration cannot be read: {_first(fault)}")


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
            raise GradbenchError(f"{option} {shown(value)}".strip() + f": {due} must follow")
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


def composed_dirs() -> list[Path]:
    """Return the user's folders that the running configuration was composed from."""
    from hydra.core.hydra_config import HydraConfig

    paths = [s.path for s in HydraConfig.get().runtime.config_sources if s.schema == "file"]
    return [Path(p) for p in paths if p and Path(p) != builtin_dir()]


def composed(cfg) -> dict[str, Any]:
    """Return the composed configuration as plain data.

    Raises:
        GradbenchError: if it cannot be resolved, or is not what it should be.
    """
    config = plain(cfg)
    check_settings(config)
    return config


def at_home(word: str) -> str:
    """Return a setting of a folder with `~` written out: not every shell does it after `=`.

    >>> at_home("seed=1")
    'seed=1'
    """
    key, _, path = word.partition("=")
    return f"{key}={Path(path).expanduser()}" if key in FOLDERS and path[:1] == "~" else word


def explain(fault: Exception, words: list[str]) -> str:
    """Return one sentence for an exception of Hydra or OmegaConf that a command line caused."""
    text = str(fault)
    launcher = re.search(r"Could not find 'hydra/launcher/([^']+)'", text)
    if launcher:
        return missing_launcher(launcher[1])
    group = re.search(r"Could not find '(\w+)/([^']+)'", text) or re.search(
        r"Could not load '(\w+)/([^']+)'", text
    )
    if group and group[1] in GROUPS:
        return str(unknown(group[1], group[2], group_files(group[1], config_dirs(words))))
    key = re.search(r"Could not override '([^']+)'", text)
    if key:
        known = settings(words)
        # the key itself may be known: what is wrong stands inside it
        inside = re.search(r"full_key: (\S+)", str(fault.__cause__)) if key[1] in known else None
        name = (inside or key)[1]
        if name in every_setting() and name.split(".")[0] in OPEN:
            return f"the chosen file does not name {name}: add it with a plus, +{name}=…"
        return str(unknown("setting", name, known))
    return " ".join(text.split())


def missing_launcher(name: str) -> str:
    """Return one sentence for a launcher that is not installed, or that there is not."""
    if name not in LAUNCHERS:
        return str(unknown("launcher", name, ("basic", *LAUNCHERS)))
    package, extra = LAUNCHERS[name]
    apart = ", in an environment of its own (scripts/try_ray.sh makes one)" if name == "ray" else ""
    return f"launcher {name} needs {package}: pip install 'gradbench[{extra}]'{apart}"


def settings(words: Iterable[str]) -> list[str]:
    """Return the names of all settings of the main configuration and of the chosen members."""
    from omegaconf import OmegaConf

    names = [*every_setting(), *OPTIONAL]

    def walk(node, prefix: str) -> None:
        for key, value in node.items():
            names.append(prefix + key)
            if isinstance(value, dict):
                walk(value, f"{prefix}{key}.")

    words = list(words)
    for group, usual in USUAL.items():
        files = group_files(group, config_dirs(words))
        chosen = [w.removeprefix(f"{group}=") for w in words if w.startswith(f"{group}=")]
        name = chosen[-1] if chosen and chosen[-1] in files else usual
        walk(OmegaConf.to_container(OmegaConf.load(files[name])), f"{group}.")
    return sorted(set(names))


def _first(fault: Exception) -> str:
    return (str(fault).splitlines() or [type(fault).__name__])[0]
