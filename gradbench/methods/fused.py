"""The sum of several detectors' scores, standardised on the hold-out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from gradbench.config import load_member
from gradbench.errors import GradbenchError
from gradbench.methods.base import Detector, Outputs, Samples, part_of
from gradbench.store import canonical_json
from gradbench.support.code_keys import stable_config
from gradbench.support.instantiate import instantiate

TINY = 1e-12
MIRROR = "mirrored/"
Part = str | Mapping[str, Any] | Detector


class Fused(Detector):
    """s = sum of z(s_i) over `parts` + sum of max(0, z(log s_j)) over `rectified`.

    z takes off the mean and divides by the standard deviation on the hold-out. Scores that are
    rectified are distances, and count only where they are above that of the average clean image:
    they see images that the others miss, and add noise where they see none. With `mirrored` every
    s_i and log s_j is the mean of that of the image and that of the image in a mirror. No weight
    is fitted and no challenge image is seen. Its paper is that of the first of `rectified`, else
    of `parts`.

    Differs from the paper: the fusion is ours.

    Args:
        parts: detectors of gradbench by name, or {use: NAME, setting: value}.
        rectified: likewise, with scores of 0 and above.
        mirrored: take the mirrored image too, for networks that were trained with such images.

    Raises:
        GradbenchError: for no part, an unknown one, or one that sees challenges or perturbs images;
            for a rectified score below 0 on the hold-out.
    """

    supervision = "none"

    def __init__(self, parts: list, rectified: list = (), mirrored: bool = False):
        for name, given in (("parts", parts), ("rectified", rectified)):
            if isinstance(given, str) or not isinstance(given, Sequence):
                raise GradbenchError(f"fused {name}={given!r}: write a list of detectors")
        built = [_member(part) for part in (*parts, *rectified)]
        members = [member for member, _ in built]
        self.parts, self.rectified = members[: len(parts)], members[len(parts) :]
        if not self.members:
            raise GradbenchError("fused parts=[]: name at least one detector")
        self.info = replace([*self.rectified, *self.parts][0].info, own=True)
        # The numbers change with those of any part, and with the settings in the file of its name.
        facts = canonical_json([1, [[member.version, own] for member, own in built]])
        self.version = int(hashlib.sha256(facts.encode()).hexdigest()[:7], 16)
        self.mirrored = mirrored
        self.mean = self.std = torch.empty(0)

    @property
    def members(self) -> list[Detector]:
        """The parts, then those that are rectified."""
        return [*self.parts, *self.rectified]

    @property
    def reads(self) -> Sequence[str]:
        """The outputs that any of them scores."""
        names = _union(self.members, lambda member: member.reads)
        return (*names, *(MIRROR + name for name in names if self.mirrored))

    @property
    def bank_reads(self) -> Sequence[str]:
        """What any of them needs of the training images."""
        return _union(self.members, lambda member: member.bank_reads)

    @property
    def hold_out_reads(self) -> Sequence[str]:
        """What any of them scores or is fitted on: all are standardised on the hold-out."""
        fitted = _union(self.members, lambda member: member.hold_out_reads)
        return tuple(dict.fromkeys((*self.reads, *fitted)))

    def fit(self, bank: Outputs, fit: Samples, choose: Samples, seed: int = 0) -> Fused:
        """Fit the members, then their means and standard deviations on the hold-out."""
        for member in self.members:
            member.fit(bank, fit, choose, seed)
        for member in self.rectified:
            if (member.score(fit.clean) < 0).any():
                raise GradbenchError(
                    f"fused: {type(member).__name__} has scores below 0, which have no logarithm: "
                    "name it among `parts`, not `rectified`"
                )
        scores = self.views(fit.clean).mean(0)
        self.mean, std = scores.mean(0), scores.std(0, correction=0)
        self.std = torch.where(std > TINY, std, 1)
        return self

    def score(self, outputs: Outputs) -> Tensor:
        """Return (N,) sums of standardised scores."""
        scores = (self.views(outputs).mean(0) - self.mean) / self.std
        count = len(self.parts)
        return scores[:, :count].sum(1) + scores[:, count:].clamp(min=0).sum(1)

    def state(self) -> dict[str, Tensor]:
        """Return means, standard deviations, and the states of the members by their number."""
        if not self.mean.numel():
            return {}
        states = {"mean": self.mean, "std": self.std}
        for i, member in enumerate(self.members):
            states |= {f"{i}.{name}": tensor for name, tensor in member.state().items()}
        return states

    def load(self, state: Mapping[str, Tensor]) -> Fused:
        """Take over a fitted state."""
        self.mean, self.std = state["mean"], state["std"]
        for i, member in enumerate(self.members):
            if part := part_of(state, f"{i}."):
                member.load(part)
        return self

    def views(self, outputs: Outputs) -> Tensor:
        """Return the members' scores of each view, (1 or 2, N, members), logs where rectified."""
        views = [outputs, part_of(outputs, MIRROR)] if self.mirrored else [outputs]
        return torch.stack([self._scores(view) for view in views])

    def _scores(self, outputs: Outputs) -> Tensor:
        scores = [member.score(outputs).double() for member in self.members]
        for i in range(len(self.parts), len(scores)):
            scores[i] = scores[i].clamp(min=TINY).log()
        return torch.stack(scores, dim=1)


def _member(part: Part) -> tuple[Detector, dict[str, Any]]:
    """Return a part and its settings, built where it is a name: so that files run no code.

    Such names are of gradbench's own detectors.
    """
    settings: dict[str, Any] = {}
    if not isinstance(part, Detector):
        changes = dict(part) if isinstance(part, Mapping) else {"use": part}
        name = changes.pop("use", None)
        content = load_member("detector", name)
        if "_target_" in changes or "_target_" not in content:
            raise GradbenchError(f"fused: the part {name} is no single detector of gradbench")
        settings = stable_config(content | changes)
        settings.pop("description", None)
        part = instantiate("detector", name, content | changes, base=Detector)
    if part.supervision != "none" or part.planned_passes(("layer",)):
        raise GradbenchError(
            f"fused: {type(part).__name__} sees challenges or perturbs images; choose parts that "
            "do neither"
        )
    return part, settings


def _union(
    members: Sequence[Detector], names: Callable[[Detector], Sequence[str]]
) -> Sequence[str]:
    return tuple(dict.fromkeys(name for member in members for name in names(member)))
