"""What outputs learn from f's training images before they are read; kept once for a network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from copy import copy
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from gradbench.backbones.backbone import Backbone
from gradbench.data.imageset import ImageSet
from gradbench.data.roles import stratified_subset
from gradbench.errors import Faulty
from gradbench.outputs.base import Output
from gradbench.store import Key, Store
from gradbench.support.external import external_call
from gradbench.support.progress import step
from gradbench.support.tensors import save_tensors

STEP = "learned"
FILE = "learned.safetensors"


class Lessons:
    """The training images of f, whose digest is `weights`, from which outputs of it learn.

    Without a store, what was learned is kept by this object alone.
    """

    def __init__(self, backbone: Backbone, weights: str, images: ImageSet, store: Store | None):
        self.backbone, self.weights, self.images, self.store = backbone, weights, images, store
        self._known: dict[str, dict[str, Tensor] | str] = {}

    def named(self, outputs: Iterable[Output]) -> list[Output]:
        """Return the outputs with the digests that stand in keys of what they read.

        Nothing is learned: see `taught`.
        """
        return [
            with_learned(output, output.learned, self.key(output).digest)
            if output.learns_from
            else output
            for output in outputs
        ]

    def taught(self, outputs: Iterable[Output]) -> tuple[list[Output], dict[str, str]]:
        """Return the outputs with what they learned, and by name why some of users' own cannot.

        Raises:
            GradbenchError: if one of gradbench's cannot learn from these images.
        """
        ready, faults = [], {}
        for output in outputs:
            if output.learns_from and not output.learned:
                learned = self._learned(output)
                if isinstance(learned, str):
                    faults[output.name] = learned
                    continue
                output = with_learned(output, learned, output.learned_key)
            ready.append(output)
        return ready, faults

    def tensors(self, names: Iterable[str], outputs: Sequence[Output]) -> dict[str, Tensor]:
        """Return `learned/<output>/<tensor>` by name, of tensors that these outputs learned.

        Raises:
            Faulty: if an output of the user's own cannot learn.
            GradbenchError: see `taught`.
        """
        ready, faults = self.taught(outputs)
        found = {f"learned/{o.name}/{n}": v for o in ready for n, v in o.learned.items()}
        for fault in faults.values():
            raise Faulty(fault)
        return {name: found[name] for name in names}

    def key(self, output: Output) -> Key:
        """Return the key of what an output learns."""
        plain = with_learned(output, {}, "")
        config = {
            "output": output.name,
            "identity": plain.identity,
            "images": output.learns_from,
            "feature_layers": list(self.backbone.feature_layers),
        }
        inputs = {"weights": self.weights, "images": self.images.fingerprint}
        return Key(STEP, output.version, config, inputs)

    def learn(self, output: Output, images: ImageSet) -> dict[str, Tensor]:
        """Return what an output learns from images, looked at if it is of the user's own."""
        member = f"output {output.name}: {type(output).__qualname__}.learn"
        with external_call(member) if output.is_users_own else nullcontext():
            learned = output.learn(self.backbone, images)
        good = isinstance(learned, Mapping) and all(
            isinstance(n, str) and torch.is_tensor(v) and v.isfinite().all()
            for n, v in learned.items()
        )
        if not good or not learned:
            raise Faulty(f"{member}: a dictionary from names to tensors of finite numbers is due")
        return {name: v.detach().cpu() for name, v in learned.items()}

    def _learned(self, output: Output) -> dict[str, Tensor] | str:
        if output.name not in self._known:
            try:
                self._known[output.name] = self._kept(output)
            except Faulty as fault:
                self._known[output.name] = str(fault)
        return self._known[output.name]

    def _kept(self, output: Output) -> dict[str, Tensor]:
        images = stratified_subset(self.images, output.learns_from)
        learn = partial(self.learn, output, images)
        title = f"{output.name}: learns from {len(images)} training images"
        if self.store is None:
            with step(title):
                return learn()

        def build(folder: Path, _: Path) -> dict:
            with step(title):
                save_tensors(learn(), folder / FILE)
            return {"images": len(images)}

        return load_file(str(self.store.make(self.key(output), build).path(FILE)))


def with_learned(output: Output, learned: Mapping[str, Tensor], key: str) -> Output:
    """Return a copy of an output that has learned something, whose digest is `key`."""
    other = copy(output)
    for attribute, value in (("learned", learned), ("learned_key", key)):
        object.__setattr__(other, attribute, value)
    return other
