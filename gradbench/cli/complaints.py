"""Puts complaints of Hydra, OmegaConf and YAML about a command line into one sentence."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from gradbench.cli.words import config_dirs
from gradbench.config import GROUPS, every_setting, files_in, group_files, load_member
from gradbench.errors import GradbenchError, unknown

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


@contextlib.contextmanager
def in_a_sentence(words: list[str]) -> Iterator[None]:
    """Turn an exception of Hydra or OmegaConf into a GradbenchError."""
    try:
        yield
    except (YAMLError, UnicodeDecodeError) as fault:
        raise unreadable(config_dirs(words)) or fault from fault.__cause__
    except (HydraException, OmegaConfBaseException) as fault:
        raise GradbenchError(explain(fault, words)) from fault


def unreadable(dirs: list[Path]) -> GradbenchError | None:
    """Return the error for the user's file that cannot be read, None where all can."""
    for group in GROUPS:
        for name in files_in(dirs, group):
            try:
                load_member(group, name, dirs, resolve=False)
            except GradbenchError as told:
                if isinstance(told.__cause__, YAMLError | UnicodeDecodeError | OSError):
                    return told
    return None


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


def first_line(fault: Exception) -> str:
    """Return the first line of an exception's text, or else its kind."""
    return (str(fault).splitlines() or [type(fault).__name__])[0][:200]
