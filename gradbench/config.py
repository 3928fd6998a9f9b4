"""Configuration: its typed description, its files, and how Hydra composes it.

The folder `configs/` stands beside the package in a checkout and inside it in an installed
wheel; the folders of `--config-dir` come before it. configs/config.yaml and the files of
experiments hold the same settings (`Settings`). Settings of members are described by the
constructors of their classes.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from msgspec import UNSET, Meta, Struct

from gradbench.errors import GradbenchError, unknown
from gradbench.support.text import check_name, format_value
from gradbench.support.typed import check_type

if TYPE_CHECKING:
    from hydra._internal.hydra import Hydra

GROUPS = (
    *("backbone", "dataset", "challenge", "output", "detector", "protocol", "task", "experiment"),
    "launcher",
)
CHOSEN = ("backbone", "dataset", "protocol", "task", "experiment", "launcher")
"""Groups of which a run takes one member, by `group=NAME`."""
INSIDE = ("backbone", "dataset", "protocol", "task")
"""Groups whose chosen member is a section of the configuration."""

From0 = Annotated[int, Meta(ge=0)]
From1 = Annotated[int, Meta(ge=1)]
From10 = Annotated[int, Meta(ge=10)]
Seed = Annotated[int, Meta(ge=0, le=2**32 - 1)]
"""NumPy and scikit-learn take no larger ones."""
Entry = str | dict[str, Any]
"""A member's name, or `{use: NAME, setting: value}`."""
Keep = Literal["all", "successful"]

ABSENT: Any = UNSET
"""A file need not name every setting; what holds then stands in configs/config.yaml."""


class Section(Struct, forbid_unknown_fields=True):
    """A mapping whose settings are all known."""


class DataSection(Section):
    """The places of images, see `data.dataset.DataSettings`."""

    root: str = ABSENT
    download: bool = ABSENT
    workers: From1 = ABSENT


class TrainingSection(Section):
    """The training of f, see `backbones.recipe.Recipe`."""

    epochs: From1 = ABSENT
    batch: Annotated[int, Meta(ge=2)] = ABSENT
    lr: Annotated[float, Meta(ge=0)] = ABSENT
    schedule: Literal["onecycle", "cosine"] = ABSENT
    momentum: Annotated[float, Meta(ge=0, lt=1)] = ABSENT
    weight_decay: Annotated[float, Meta(ge=0)] = ABSENT
    precision: Literal["auto", "bfloat16", "float32"] = ABSENT
    reduced: Annotated[float, Meta(ge=0, le=1)] = ABSENT


class AugmentSection(Section):
    """The augmentation of training images."""

    pad: From0 = ABSENT
    flip: bool = ABSENT


class RolesSection(Section):
    """The splits of a data set that play each role, in order of preference."""

    train: str | list[str] = ABSENT
    test: str | list[str] = ABSENT
    challenge: str | list[str] = ABSENT


class ProcessingStep(Section):
    """One step of the resampling and JPEG compression that a data set's images went through."""

    shape: tuple[From1, From1] = ABSENT
    filter: Literal["nearest", "box", "bilinear", "bicubic", "lanczos"] = ABSENT
    jpeg: Annotated[int, Meta(ge=1, le=100)] = ABSENT


class ArchiveSection(Section):
    """An archive of a data set, see `data.download`."""

    url: str
    md5: str = ABSENT
    sha256: str = ABSENT
    bytes: From1 = ABSENT
    to: str = ABSENT
    inner: str = ABSENT
    splits: list[str] = ABSENT


class ChallengeSection(Section):
    """Settings of all challenges of a run."""

    seed: Seed = ABSENT
    quantise: bool = ABSENT
    source: Literal["archive", "generated", "auto"] = ABSENT
    keep: Keep | None = ABSENT
    noisy_negatives: bool | None = ABSENT


class DetectorSection(Section):
    """Settings of all detectors of a run."""

    seed: Seed = ABSENT


class EvaluationSection(Section):
    """The measurement of numbers and their intervals."""

    seed: Seed = ABSENT
    replicates: Annotated[int, Meta(ge=100, le=10**6)] = ABSENT
    confidence: Annotated[float, Meta(ge=0.5, lt=1)] = ABSENT


class ControlsSection(Section):
    """The controls that are made."""

    identity: bool = ABSENT
    random_labels: bool = ABSENT
    round_trip: bool = ABSENT
    random_split: bool = ABSENT
    memorisation: bool = ABSENT
    limit: From10 = ABSENT


class ModelSection(Section):
    """The part of a run that is kept to score new images."""

    hold_out: From0 = ABSENT


class MemberFile(Struct):
    """Settings that stand in the file of every member; the rest is its class's."""

    _target_: str | None = ABSENT
    name: str | None = ABSENT
    description: str = ABSENT


class DatasetFile(MemberFile):
    """Settings in the file of a data set that hold settings themselves, see `data.dataset`."""

    roles: RolesSection = ABSENT
    augment: AugmentSection = ABSENT
    processing: ProcessingStep | list[ProcessingStep] | None = ABSENT
    archives: list[ArchiveSection] = ABSENT
    status: Literal["official", "generated", "regenerated", "part", "stand_in"] | None = ABSENT
    std: list[Annotated[float, Meta(gt=0)]] | None = ABSENT
    shape: tuple[Literal[1, 3], From1, From1] | None = ABSENT
    holdout: From0 = ABSENT
    groups: Literal["image", "track"] = ABSENT


class ArgumentsSection(Section):
    """A network's names for the number of classes and of channels, null for none."""

    classes: str | None = ABSENT
    channels: str | None = ABSENT


class PublishedSection(Section):
    """A network that others published for one data set, see `backbones.published`."""

    origin: str
    licence: str
    files: dict[str, str]
    mean: list[float]
    std: list[Annotated[float, Meta(gt=0)]]
    trained_on: str
    published_accuracy: float | None
    measured_accuracy: float | None
    remark: str = ""


class BackboneFile(MemberFile):
    """Settings in the file of a network besides arguments of its class."""

    published: dict[str, PublishedSection] = ABSENT
    checkpoint: str | None = ABSENT
    trained_on: str | None = ABSENT
    feature_layers: str | list[str] | None = ABSENT
    arguments: ArgumentsSection | None = ABSENT


class SuiteFile(Section):
    """A file that stands for several members."""

    members: list[Entry] = ABSENT
    description: str = ABSENT


class Settings(Section):
    """A run's configuration."""

    name: str = ABSENT
    description: str = ABSENT
    remark: str = ABSENT
    out: str = ABSENT
    store: str = ABSENT
    challenges: Entry | list[Entry] | None = ABSENT
    level: From0 | list[From0] | None = ABSENT
    levels: From0 | list[From0] | None = ABSENT
    detectors: Entry | list[Entry] | None = ABSENT
    seed: Seed | list[Seed] = ABSENT
    seeds: Seed | list[Seed] | None = ABSENT
    limit: From10 | None = ABSENT
    device: str = ABSENT
    devices: From1 = ABSENT
    data: DataSection = ABSENT
    training: TrainingSection = ABSENT
    challenge: ChallengeSection = ABSENT
    detector: DetectorSection = ABSENT
    evaluation: EvaluationSection = ABSENT
    controls: ControlsSection = ABSENT
    model: ModelSection = ABSENT
    backbone: BackboneFile = ABSENT
    dataset: DatasetFile = ABSENT
    protocol: MemberFile = ABSENT
    task: MemberFile = ABSENT


def check_settings(config: Mapping[str, Any]) -> None:
    """Refuse a composed configuration that is not what is described here.

    Raises:
        GradbenchError: naming the setting, its value and what is due.
    """
    check_type(config, Settings)
    check_name("name", config["name"])
    for group in INSIDE:
        if config[group].get("name") is not None:
            check_name(f"{group}.name", config[group]["name"])


def check_file(group: str, content: Mapping[str, Any], path: Path) -> None:
    """Refuse the file of a member that is not what is described here.

    References to other settings are left out: they are checked when a run is composed.

    Raises:
        GradbenchError: naming the file, the setting, its value and what is due.
    """
    due, kind, also = MemberFile, "setting", ()
    if group == "experiment":
        if "@package _global_" not in path.read_text(encoding="utf-8"):
            raise GradbenchError(
                f"{path} changes nothing: write '# @package _global_' as its first line"
            )
        due, also = Settings, ("defaults",)
        content = {k: v for k, v in content.items() if k not in ("defaults", "hydra")}
    elif group in ("backbone", "dataset"):
        due = BackboneFile if group == "backbone" else DatasetFile
    elif "members" in content:
        due, kind = SuiteFile, f"setting of a suite of {group}s"
    elif group in ("launcher", "table"):
        return
    try:
        check_type(_without_references(content), due, "", kind, also)
    except GradbenchError as fault:
        raise GradbenchError(f"{path}: {fault}") from None


def _without_references(content: Any) -> Any:
    if not isinstance(content, Mapping):
        return content
    return {k: _without_references(v) for k, v in content.items() if not _is_reference(v)}


def _is_reference(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(_is_reference, value))
    return isinstance(value, str) and ("${" in value or value == "???")


def builtin_dir() -> Path:
    """Return the folder of gradbench's own configuration files."""
    inside = Path(__file__).parent / "configs"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "configs"


def group_files(group: str, dirs: Iterable[Path] = (), builtin: bool = True) -> dict[str, Path]:
    """Return the files of a group by member name; folders named first win, built-in ones last."""
    files: dict[str, Path] = {}
    for folder in (*dirs, builtin_dir()) if builtin else dirs:
        for path in sorted((Path(folder) / group).glob("*.yaml")):
            files.setdefault(path.stem, path)
    return files


def replaced_members(dirs: Iterable[Path]) -> list[str]:
    """Return `group name` of every built-in member that a user's file takes the place of."""
    dirs = [Path(folder) for folder in dirs if not _is_builtin(folder)]
    return [
        f"{group} {name}"
        for group in GROUPS
        for name in sorted(group_files(group, dirs, builtin=False).keys() & group_files(group))
    ]


def _is_builtin(folder: str | Path) -> bool:
    return Path(folder).resolve() == builtin_dir().resolve()


def load_member(
    group: str, name: str, dirs: Iterable[Path] = (), resolve: bool = True
) -> dict[str, Any]:
    """Return the content of a member's file, by default with references inside it resolved.

    Raises:
        GradbenchError: if there is no such member, or its file is not valid.
    """
    files = group_files(group, dirs)
    if not isinstance(name, str) or name not in files:
        raise unknown(group, format_value(name), files)
    path = files[name]
    try:
        text = path.read_text(encoding="utf-8")
        content = yaml.load(text, Loader=_Loader) or {}
        if resolve and "${" in text:
            content = resolve_references(content)
    except UnicodeDecodeError as fault:
        raise GradbenchError(f"{path} is no text in UTF-8: save it in that encoding") from fault
    except (yaml.YAMLError, OSError, GradbenchError) as fault:
        reason = " ".join(str(fault).split())
        raise GradbenchError(f"{path} is not a valid configuration: {reason}") from fault
    if not isinstance(content, dict):
        raise GradbenchError(f"{path} holds no mapping of names to values")
    check_file(group, content, path)
    return content


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """Reads YAML as OmegaConf does, ten times as fast: 1e-3 is a number, a date is text."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, form) for tag, form in forms if not tag.endswith(":timestamp")]
        for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node, deep=False):
        pairs = node.value if isinstance(node, yaml.MappingNode) else ()
        keys = [key.value for key, _ in pairs if not key.tag.endswith(":merge")]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"'{key}' stands there twice", node.start_mark
                )
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def resolve_references(content: Any) -> Any:
    """Return plain data without references to other settings."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        return OmegaConf.to_container(OmegaConf.create(content), resolve=True)
    except OmegaConfBaseException as fault:
        reason = " ".join(str(fault).split())
        raise GradbenchError(f"the configuration cannot be resolved: {reason}") from fault


def check_chosen_files(overrides: Iterable[str], dirs: Iterable[Path] = ()) -> None:
    """Refuse files of chosen members that are not valid: of these Hydra says less.

    Raises:
        GradbenchError: naming the file and what is wrong with it.
    """
    for override in overrides:
        group, _, name = override.partition("=")
        if group in CHOSEN and name in group_files(group, dirs):
            load_member(group, name, dirs, resolve=False)


def expand(group: str, entries: Any, dirs: Iterable[Path] = ()) -> list[tuple[str, dict[str, Any]]]:
    """Return (name, configuration) of every entry of a plural key, suites unfolded.

    An entry is a member's name, the name of a suite (a file with `members`), or a mapping
    `{use: NAME, setting: value}` that changes settings; `name` in it renames the member.

    Raises:
        GradbenchError: for an unknown name or setting, or a name that stands twice.
    """
    dirs = tuple(dirs)
    entries = [entries] if isinstance(entries, str | Mapping) else entries or []
    members: dict[str, dict[str, Any]] = {}
    for entry in _unfold(group, entries, dirs):
        changes = dict(entry)
        base = changes.pop("use", None)
        if not isinstance(base, str):
            raise GradbenchError(
                f"{group}s: {format_value(entry)} names no member; write {{use: NAME, …}}"
            )
        name = check_name(f"name of a {group}", changes.pop("name", base))
        content = load_member(group, base, dirs)
        if "members" in content:
            raise GradbenchError(
                f"{group}s: {format_value(entry)} changes a suite; name its members, as "
                "{use: NAME, …}"
            )
        if name in members:
            raise GradbenchError(
                f"{group}s: '{name}' stands there twice; give one a name: of its own"
            )
        members[name] = content | changes
    return list(members.items())


def _unfold(
    group: str, entries: Iterable[Any], dirs: tuple[Path, ...], inside: tuple[str, ...] = ()
) -> Iterator[Mapping[str, Any]]:
    for entry in entries:
        content = {} if isinstance(entry, Mapping) else load_member(group, entry, dirs)
        if "members" not in content:
            yield entry if isinstance(entry, Mapping) else {"use": entry}
        elif entry in inside:
            raise GradbenchError(f"the suite '{entry}' of {group}s contains itself")
        else:
            yield from _unfold(group, content["members"], dirs, (*inside, entry))


@contextlib.contextmanager
def hydra_session(dirs: Iterable[str | Path] = ()) -> Iterator[Hydra]:
    """Give Hydra with gradbench's configuration files and the user's, for the time of the block.

    Raises:
        GradbenchError: if a folder of the user would replace the main configuration.
    """
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    with initialize_config_dir(str(builtin_dir()), version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        path = hydra.config_loader.get_search_path()
        for folder in dirs:
            if _is_builtin(folder):
                continue
            if (Path(folder) / "config.yaml").exists():
                raise GradbenchError(
                    f"{Path(folder) / 'config.yaml'} would replace the main configuration: put "
                    "your settings into experiment/NAME.yaml and choose it with experiment=NAME"
                )
            # `hydra.searchpath` would put it last, and Hydra takes the first file of a name
            path.prepend("--config-dir", f"file://{Path(folder).resolve()}", anchor="main")
        hydra.config_loader.repository.initialize_sources(path)
        yield hydra


def compose(overrides: Sequence[str] = (), dirs: Iterable[str | Path] = ()) -> dict[str, Any]:
    """Return the resolved configuration of a run for overrides such as `experiment=quickstart`.

    Raises:
        GradbenchError: if the file of a chosen member is not valid.
    """
    dirs = [Path(folder) for folder in dirs]
    check_chosen_files(overrides, dirs)
    from hydra import compose as hydra_compose

    with hydra_session(dirs):
        return resolve_references(hydra_compose("config", list(overrides)))
