"""Finds outputs by their names: gradbench's own, and those of the user."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import Any

from gradbench.backbones.backbone import Backbone
from gradbench.config import builtin_dir, group_files, load_member
from gradbench.errors import Faulty, GradbenchError, unknown
from gradbench.outputs.base import Needs, Output
from gradbench.support.code_keys import stable_config
from gradbench.support.external import external_call
from gradbench.support.instantiate import (
    import_target,
    imported_targets,
    instantiate,
    parameters_of,
)


class OutputCatalogue:
    """The outputs of `configs/output/` and of the user.

    Args:
        dirs: folders of the user's own configuration files.
        members: content of files that are not in a folder, by name; they come first.
    """

    def __init__(
        self, dirs: Iterable[Path] = (), members: Mapping[str, Mapping[str, Any]] | None = None
    ):
        self.dirs, self.members = tuple(dirs), dict(members or {})
        self._found: dict[str, Output] = {}

    def find(self, name: str) -> Output:
        """Return the output of a name.

        >>> OutputCatalogue().find("squared_norms/ones/bce").loss
        'bce'

        Raises:
            GradbenchError: if there is none of that name, or it is misnamed.
            Faulty: if a class of the user's cannot be used.
        """
        if name not in self._found:
            self._found[name] = self._build(name)
        return self._found[name]

    def of_network(self, backbone: Backbone, names: Iterable[str]) -> list[Output]:
        """Return the outputs of names in alphabetical order, one a layer for `layer_means`.

        Layers stand in the order of the network, so that the last of them is the deepest.

        >>> from gradbench.backbones.small_cnn import SmallCNN
        >>> f = Backbone(SmallCNN(3), [0.5], [0.5], "abc", (1, 8, 8))
        >>> [output.name for output in OutputCatalogue().of_network(f, ["logits", "layer_means"])]
        ['layer_means/stage1', 'layer_means/stage2', 'layer_means/stage3', 'logits']

        Raises:
            GradbenchError: see `find`; if layers are wanted and the network has none.
        """
        every = (one for name in sorted(set(names)) for one in self.find(name).of_network(backbone))
        return list({output.name: output for output in every}.values())

    def users_own(self, names: Iterable[str]) -> dict[str, Output]:
        """Return those outputs of names that are not gradbench's, by the name of their file."""
        kinds = {name.partition("/")[0]: self.find(name) for name in names}
        return {kind: one for kind, one in kinds.items() if one.is_users_own or one.settings}

    def versions(self) -> dict[str, int]:
        """Return the version of every output, by the name of its file."""
        targets = {k: self.content(k)["_target_"] for k in group_files("output", self.dirs)}
        return {
            kind: import_target(f"output {kind}", path, Output).version
            for kind, path in targets.items()
        }

    def content(self, kind: str) -> dict[str, Any]:
        """Return the content of an output's file.

        Raises:
            GradbenchError: if there is no such file, or it is not YAML.
        """
        if kind in self.members:
            return dict(self.members[kind])
        kinds = group_files("output", self.dirs)
        if kind not in kinds:
            raise unknown("output", kind, {*kinds, *self.members})
        return load_member("output", kind, self.dirs, resolve=False)

    def _build(self, name: str) -> Output:
        kind, *rest = str(name).split("/", 1)
        content = {k: v for k, v in self.content(kind).items() if k != "description"}
        (make,) = imported_targets(content.get("_target_")) or (None,)
        wanted = tuple(getattr(make, "parameters", ()))
        values = rest[0].split("/", len(wanted) - 1) if rest else []
        named = parameters_of(make)[0] if wanted else {}
        present = {*content, *(wanted if values else ())}
        missing = [p for p in wanted if p not in present and p in named
                   and named[p].default is inspect.Parameter.empty]  # fmt: skip
        if missing or not all(values) or (rest and len(values) != len(wanted)):
            form = "/".join([kind, *(f"<{parameter}>" for parameter in wanted)])
            raise GradbenchError(f"the output '{name}' is misnamed: write {form}")
        output = instantiate("output", kind, content | dict(zip(wanted, values)), base=Output)
        home = builtin_dir() / "output"
        is_built_in = (
            kind not in self.members and group_files("output", self.dirs)[kind].parent == home
        )
        settings = {} if is_built_in else stable_config(content)
        about = f"output {kind}: {type(output).__qualname__}"
        with external_call(about) if output.is_users_own else nullcontext():
            if not isinstance(output.needs, Needs) or type(output.version) is not int:
                raise Faulty(f"{about}: `needs` must be Needs(...) and `version` a whole number")
            for attribute, value in (("name", str(name)), ("settings", settings)):
                object.__setattr__(output, attribute, value)
        return output


@cache
def built_in() -> OutputCatalogue:
    """Return the catalogue of gradbench's own outputs."""
    return OutputCatalogue()


def as_outputs(backbone: Backbone, names: Iterable[str | Output]) -> list[Output]:
    """Return outputs as they are, and those of gradbench that are given by their names."""
    outputs = list(names)
    if all(isinstance(output, Output) for output in outputs):
        return list({output.name: output for output in outputs}.values())
    return built_in().of_network(backbone, outputs)
