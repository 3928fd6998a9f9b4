"""The one place where commands compose a run's configuration by Hydra.

Settings are checked first, so that a fault is one sentence with the valid choices: Hydra names
its own notions instead, and cannot know what gradbench's settings mean.
"""

from __future__ import annotations

import contextlib
import re
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from gradbench import config
from gradbench.cli.arguments import INFO
from gradbench.config import CHOSEN, GROUPS, Settings, group_files, load_member
from gradbench.errors import GradbenchError, printable, unknown
from gradbench.support.text import format_value
from gradbench.support.typed import setting_names

LAUNCHERS = {
    "joblib": ("hydra-joblib-launcher", "parallel"),
    "submitit_local": ("hydra-submitit-launcher", "slurm"),
    "submitit_slurm": ("hydra-submitit-launcher", "slurm"),
    "ray": ("hydra-ray-launcher", "ray"),
}
"""Package of a launcher, and the extra of gradbench that installs it."""
OPTIONAL = ("experiment", "launcher")
"""Groups of which a run need not have a member."""
DEFAULTS = {"backbone": "resnet18", "dataset": "cifar10", "protocol": "grouped"}
"""Members that a run takes where nothing else is chosen."""
OPEN = ("hydra", "backbone", "dataset", "protocol")
"""Sections that take settings which their files do not name (`+backbone.groups=2`)."""
FOLDERS = ("out", "store", "data.root")
DEEPEST = 30
"""Brackets in each other; Hydra's parser takes no more than some hundred."""


def compose(
    words: Sequence[str], dirs: Sequence[Path] = (), for_sweep: bool = False
) -> dict[str, Any]:
    """Return the checked configuration of a run; for a sweep a launcher may be chosen.

    Raises:
        GradbenchError: for a setting that is unknown, or not what it must be.
    """
    words = prepare_overrides(words, dirs, for_sweep)
    with hydra_faults(words, dirs):
        composed = config.compose(words, dirs)
    config.check_settings(composed)
    return composed


def print_config(args: Namespace) -> bool:
    """Print the configuration of a run if `--cfg` or `--info` ask for it; tell whether they do.

    Raises:
        GradbenchError: for an option without its value, or a setting as in `compose`.
    """
    if "=" in (args.info or ""):  # a bare --info before a setting
        args.words, args.info = [args.info, *args.words], "all"
    if args.info and args.info not in INFO:
        raise unknown("--info", args.info, INFO)
    if (args.resolve or args.package) and not args.cfg:
        raise GradbenchError("--resolve and --package change what --cfg job prints: give that too")
    if not (args.cfg or args.info):
        return False
    words = prepare_overrides(args.words, args.config_dir, for_sweep=args.command == "sweep")
    with hydra_faults(words, args.config_dir), config.hydra_session(args.config_dir) as hydra:
        if args.cfg:
            hydra.show_cfg("config", words, args.cfg, args.package, args.resolve)
        else:
            hydra.show_info(args.info, "config", words)
    return True


def prepare_overrides(
    words: Iterable[str], dirs: Sequence[Path], for_sweep: bool = False
) -> list[str]:
    """Return settings as Hydra takes them.

    Raises:
        GradbenchError: for what is no setting, a comma list outside a sweep, a group whose members
            stand under a plural key, a member that there is not.
    """
    words = [for_hydra(word) for word in words]
    for word in words:
        _check_override(word, words, dirs, for_sweep)
    config.check_chosen_files(words, dirs)
    return words


def for_hydra(word: str) -> str:
    """Return a setting as Hydra takes it.

    The home folder is written out, which not every shell does behind `=`. The name of a file for
    every seed goes into quotes, since a brace begins a mapping; and what a network was trained on
    may be given though its file in `configs/backbone/` does not name that.

    >>> for_hydra("backbone.checkpoint=f-{seed}.pt")
    "backbone.checkpoint='f-{seed}.pt'"
    >>> for_hydra("backbone.trained_on=names-{seed}.txt")
    "++backbone.trained_on='names-{seed}.txt'"
    >>> for_hydra("seeds=[0,1]")
    'seeds=[0,1]'
    """
    key, _, value = word.partition("=")
    if key in FOLDERS and value[:1] == "~":
        return f"{key}={Path(value).expanduser()}"
    per_seed = key in ("backbone.checkpoint", "backbone.trained_on") and "{seed}" in value
    if per_seed and value[0] not in "'\"":
        word = f"{key}='{value}'"
    return f"++{word}" if key == "backbone.trained_on" else word


def is_sweep(word: str) -> bool:
    """Tell whether a setting has several values, of which each makes a run."""
    return _parse(word).is_sweep_override()


def _parse(word: str) -> Override:
    if word.startswith("~"):
        raise GradbenchError(f"{word}: settings can be changed, not taken away")
    key, equals, value = word.partition("=")
    if not key or not equals:
        raise GradbenchError(f"'{word}' is no setting: write key=value, for example seed=1")
    if max(accumulate((c in "[{") - (c in "]}") for c in word)) > DEEPEST:
        raise GradbenchError(f"{format_value(word)}: more than {DEEPEST} brackets in each other")
    try:
        return OverridesParser.create().parse_override(word)
    except HydraException as fault:
        quoted = printable(f"{key}='{value}'".replace('"', r"\""))[:300]
        reason = (str(fault).splitlines() or [type(fault).__name__])[0][:200]
        raise GradbenchError(
            f"'{format_value(word)}' cannot be read ({reason}): a value with one of "
            f'= ( [ {{ , in it stands in two pairs of quotes, "{quoted}"'
        ) from fault


def _check_override(word: str, words: Sequence[str], dirs: Sequence[Path], sweep: bool) -> None:
    override = _parse(word)
    key, text = override.key_or_group, word.split("=", 1)[1]
    several = override.is_sweep_override()
    value = None if several else override.value()
    if override.is_add() and key.split(".")[0] not in OPEN:
        raise unknown("setting", key, _known_settings(words, dirs))
    if key in CHOSEN and not several:
        _check_member(key, value, word, dirs)
    if override.value_type == ValueType.GLOB_CHOICE_SWEEP and key not in CHOSEN:
        raise GradbenchError(
            f"{word}: glob chooses among the members of {', '.join(CHOSEN[:5])}; write the "
            f"values of {key} one by one"
        )
    if key in FOLDERS and not several and value in (None, ""):
        raise GradbenchError(f"{word}: name a folder")
    if key in ("challenge", "detector"):
        raise GradbenchError(
            f"{word}: {key}s are listed under the plural key, write '{key}s=[{text}]'"
        )
    if key == "launcher" and not sweep and value is not None:
        raise GradbenchError(f"{word}: a launcher carries out the jobs of `gradbench sweep`")
    if several and not sweep:
        plural = key if key.endswith("s") else f"{key}s"
        inside = f"'{plural}=[{text}]'" if key in ("seed", "level") else f"{key}=VALUE"
        raise GradbenchError(
            f"{word} is a list for a sweep: write {inside} to do it in one run, or "
            f"`gradbench sweep {word}` to make a run of each"
        )


def _check_member(group: str, name: Any, word: str, dirs: Sequence[Path]) -> None:
    if name in (None, ""):
        if group in OPTIONAL:
            raise GradbenchError(f"{word}: leave it out for no {group}")
        raise GradbenchError(f"{word}: name a {group}, `gradbench list {group}s` names all")
    files = group_files(group, dirs)
    if group != "launcher" and (isinstance(name, bool | list | dict) or str(name) not in files):
        raise unknown(group, word.partition("=")[2], files)


@contextlib.contextmanager
def hydra_faults(words: Sequence[str], dirs: Sequence[Path] = ()) -> Iterator[None]:
    """Turn exceptions of Hydra, OmegaConf and YAML about a command line into one sentence."""
    try:
        yield
    except (YAMLError, UnicodeDecodeError):
        for group in GROUPS:  # Hydra does not say which of the user's files it is
            for name in group_files(group, dirs, builtin=False):
                try:
                    load_member(group, name, dirs, resolve=False)
                except GradbenchError as error:
                    if error.__cause__ is not None:  # it cannot be read at all
                        raise
        raise
    except (HydraException, OmegaConfBaseException) as fault:
        raise _explain(fault, words, dirs) from fault


def _explain(fault: Exception, words: Sequence[str], dirs: Sequence[Path]) -> GradbenchError:
    text = str(fault)
    if launcher := re.search(r"Could not find 'hydra/launcher/([^']+)'", text):
        return missing_launcher(launcher[1])
    member = re.search(r"Could not (?:find|load) '(\w+)/([^']+)'", text)
    if member and member[1] in GROUPS:
        return unknown(member[1], member[2], group_files(member[1], dirs))
    if key := re.search(r"Could not override '([^']+)'", text):
        known = _known_settings(words, dirs)
        # the key itself may be known: what is wrong stands inside it
        inside = re.search(r"full_key: (\S+)", str(fault.__cause__)) if key[1] in known else None
        name = (inside or key)[1]
        if name in setting_names(Settings) and name.split(".")[0] in OPEN:
            return GradbenchError(
                f"the chosen file does not name {name}: add it with a plus, +{name}=…"
            )
        return unknown("setting", name, known)
    return GradbenchError(" ".join(text.split()))


def missing_launcher(name: str) -> GradbenchError:
    """Return the error for a launcher that is not installed, or that there is not."""
    if name not in LAUNCHERS:
        return unknown("launcher", name, ("basic", *LAUNCHERS))
    package, extra = LAUNCHERS[name]
    apart = ", in an environment of its own (scripts/try_ray.sh makes one)" if name == "ray" else ""
    return GradbenchError(
        f"launcher {name} needs {package}: pip install 'gradbench[{extra}]'{apart}"
    )


def _known_settings(words: Iterable[str], dirs: Sequence[Path]) -> list[str]:
    """Return the names of all settings of the main configuration and of the chosen members."""
    names = {*setting_names(Settings), *OPTIONAL}

    def walk(node: Mapping[str, Any], prefix: str) -> None:
        for key, value in node.items():
            names.add(f"{prefix}{key}")
            if isinstance(value, Mapping):
                walk(value, f"{prefix}{key}.")

    chosen = dict(word.split("=", 1) for word in words if "=" in word)
    for group, default in DEFAULTS.items():
        name = chosen.get(group)
        name = name if name in group_files(group, dirs) else default
        walk(load_member(group, name, dirs, resolve=False), f"{group}.")
    return sorted(names)
