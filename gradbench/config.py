"""Finds configuration files and reads the members of a group.

The folder `configs/` stands beside the package in a checkout and inside it in an installed
wheel; the folders of `--config-dir` come before it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from gradbench.errors import GradbenchError, unknown
from gradbench.settings import check_file
from gradbench.support.described import written
from gradbench.support.names import check_name

GROUPS = (
    *("backbone", "dataset", "challenge", "output", "detector", "protocol", "experiment"),
    "launcher",
)
CHOSEN = ("backbone", "dataset", "protocol", "experiment", "launcher")
"""Groups of which a run takes one member, by `group=NAME`."""


def builtin_dir() -> Path:
    """Return the folder of gradbench's own configuration files."""
    inside = Path(__file__).parent / "configs"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "configs"


def compose(overrides: Sequence[str] = (), dirs: Iterable[str | Path] = ()) -> dict[str, Any]:
    """Compose the configuration of a run from Python, as the command line does.

    Args:
        overrides: for example `experiment=quickstart`.
        dirs: folders of the user's own configuration files.

    Returns:
        The resolved configuration.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir

    dirs = [str(Path(folder).resolve()) for folder in dirs]
    check_chosen(overrides, [Path(folder) for folder in dirs])
    path = [f"hydra.searchpath=[{','.join(dirs)}]"] if dirs else []
    with initialize_config_dir(str(builtin_dir()), version_base="1.3"):
        cfg = hydra_compose("config", overrides=[*path, *overrides])
    return plain(cfg)


def check_chosen(overrides: Iterable[str], dirs: Iterable[Path] = ()) -> None:
    """Look at the files of the members that overrides choose, before Hydra joins them.

    Raises:
        GradbenchError: naming the file and what is wrong with it.
    """
    for override in overrides:
        group, given, name = override.partition("=")
        if given and group in CHOSEN and name in group_files(group, dirs):
            read_member(group, name, dirs)


def plain(cfg) -> dict[str, Any]:
    """Return a composed configuration as plain, resolved data."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        return OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as fault:
        reason = " ".join(str(fault).split())
        raise GradbenchError(f"the configuration cannot be resolved: {reason}") from fault


def group_files(group: str, dirs: Iterable[Path] = ()) -> dict[str, Path]:
    """Return the files of a group by member name; folders named first win."""
    return own_files(group, (*dirs, builtin_dir()))


def read_member(group: str, name: str, dirs: Iterable[Path] = ()) -> dict[str, Any]:
    """Return the content of a member's file as it stands there, without OmegaConf's half second.

    Raises:
        GradbenchError: if there is no such member, or its file is not YAML.
    """
    import yaml

    path = _file(group, name, dirs)
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_loader()) or {}
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as fault:
        raise _unreadable(path, fault) from fault
    return _checked(group, content, path)


def load_member(group: str, name: str, dirs: Iterable[Path] = ()) -> dict[str, Any]:
    """Return the content of a member's file.

    Raises:
        GradbenchError: if there is no such member, or its file is not YAML.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    path = _file(group, name, dirs)
    try:
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except (YAMLError, OmegaConfBaseException, OSError, UnicodeDecodeError) as fault:
        raise _unreadable(path, fault) from fault
    return _checked(group, content, path)


def shadows(dirs: Iterable[Path]) -> list[str]:
    """Return `group name` of every built-in member that a user's file takes the place of."""
    dirs = [Path(folder) for folder in dirs if Path(folder).resolve() != builtin_dir().resolve()]
    return [
        f"{group} {name}"
        for group in GROUPS
        for name in sorted(own_files(group, dirs).keys() & own_files(group, [builtin_dir()]).keys())
    ]


def own_files(group: str, dirs: Iterable[Path]) -> dict[str, Path]:
    """Return the files of a group that stand in some folders by member name."""
    found: dict[str, Path] = {}
    for folder in dirs:
        for path in sorted((Path(folder) / group).glob("*.yaml")):
            found.setdefault(path.stem, path)
    return found


@cache
def _loader() -> type:
    """Return a loader that reads numbers and dates as OmegaConf's does, ten times as fast."""
    import yaml

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        """Takes 1e-3 for a number, and a date for text."""

    date = "tag:yaml.org,2002:timestamp"
    number = re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$")
    Loader.yaml_implicit_resolvers = {
        first: [(tag, form) for tag, form in found if tag != date]
        for first, found in Loader.yaml_implicit_resolvers.items()
    }
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+0123456789"))
    return Loader


def _file(group: str, name: str, dirs: Iterable[Path]) -> Path:
    files = group_files(group, dirs)
    if not isinstance(name, str) or name not in files:
        raise unknown(group, written(name), files)
    return files[name]


def _unreadable(path: Path, fault: Exception) -> GradbenchError:
    if isinstance(fault, UnicodeDecodeError):
        return GradbenchError(f"{path} is no text in UTF-8: save it in that encoding")
    reason = " ".join(str(fault).split())
    return GradbenchError(f"{path} is not a valid configuration: {reason}")


def _checked(group: str, content: Any, path: Path) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise GradbenchError(f"{path} holds no mapping of names to values")
    check_file(group, content, path)
    return content


def expand(group: str, entries: Any, dirs: Iterable[Path] = ()) -> list[tuple[str, dict[str, Any]]]:
    """Return (name, configuration) of every entry of a plural key, suites unfolded.

    An entry is a member's name, the name of a suite (a file with `members`), or a mapping
    `{use: NAME, setting: value}` that changes settings; `name` in it renames the member.

    Raises:
        GradbenchError: for an unknown name or setting, or a name that stands twice.
    """
    plural = f"{group}s"
    if isinstance(entries, (str, Mapping)):
        entries = [entries]
    found: dict[str, dict[str, Any]] = {}
    for entry in _unfold(group, entries or [], tuple(dirs)):
        changes = dict(entry)
        base = changes.pop("use", None)
        if not isinstance(base, str):
            raise GradbenchError(
                f"{plural}: {written(entry)} names no member; write {{use: NAME, …}}"
            )
        name = check_name(f"name of a {group}", changes.pop("name", base))
        content = load_member(group, base, dirs)
        if "members" in content:
            raise GradbenchError(
                f"{plural}: {written(entry)} changes a suite; name its members, as {{use: NAME, …}}"
            )
        content |= changes
        if name in found:
            raise GradbenchError(
                f"{plural}: '{name}' stands there twice; give one a name: of its own"
            )
        found[name] = content
    return list(found.items())


def _unfold(group: str, entries: Iterable[Any], dirs: tuple[Path, ...], inside=()):
    for entry in entries:
        if isinstance(entry, Mapping):
            yield entry
            continue
        content = load_member(group, entry, dirs)
        if "members" in content:
            if entry in inside:
                raise GradbenchError(f"the suite '{entry}' of {group}s contains itself")
            yield from _unfold(group, content["members"], dirs, (*inside, entry))
        else:
            yield {"use": entry}
