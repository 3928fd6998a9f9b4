"""The door of challenges: what they declare, what they are given, and what they hand back.

One whose class is from outside gets copies, its images must not depend on what is made beside them,
and the network that it attacks is left as it came; a fault in it is one sentence, and the run goes
on with the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradbench.backbones.backbone import Backbone
from gradbench.challenges.base import Asked, Challenge, Clean, Derived, Given
from gradbench.challenges.other_set import OtherSet
from gradbench.data.checked import looked_at, read_only
from gradbench.data.imageset import ImageSet
from gradbench.errors import Faulty, unknown
from gradbench.store import canonical
from gradbench.support.calling import calling, reseeded
from gradbench.support.sources import outside, told

KINDS = ("ood", "corruption", "adversarial")
GREY = 0.5
"""Grey levels by which an image may differ between batches: less than a level on the grid."""
SLACK = 0.01
"""Grey levels beyond 0 and 255 that rounding may leave."""
TURNED = 0.25
"""Share of pixels of an attack that may differ by more: rounding turns signs of gradients."""


class Unusable(Given):
    """A challenge from outside that cannot be measured; it becomes a row that says why.

    Args:
        kind: column `challenge_set` of the row.
        reason: in a sentence.
    """

    kind = "ood"

    def __init__(self, kind: str, reason: str):
        self.kind, self.reason = kind, reason

    def find(self, asked: Asked) -> ImageSet:
        """Raise the reason."""
        raise Faulty(self.reason)


def usable(name: str, challenge: Challenge, configured: Mapping[str, Any]) -> Challenge:
    """Return a challenge, or what stands for it where its class from outside is no challenge.

    Args:
        name: of the challenge in rows.
        challenge: as it was built.
        configured: content of its file, with the user's changes.
    """
    if not outside(challenge):
        return challenge
    settings = {key: value for key, value in configured.items() if key != "description"}
    object.__setattr__(challenge, "configured", settings)
    try:
        with calling(f"challenge {name}: {type(challenge).__qualname__}"):
            _check_declared(name, challenge)
    except Faulty as fault:
        kind = getattr(challenge, "kind", None)
        usual = "corruption" if isinstance(challenge, Derived) else "ood"
        return Unusable(kind if kind in KINDS else usual, str(fault))
    return challenge


def in_keys(challenge: Derived) -> dict[str, Any]:
    """Return what keys add for a class from outside: its source, and all settings of its file.

    Its own `settings` may have forgotten one.
    """
    code = told(challenge)
    return code and {**code, "configured": getattr(challenge, "configured", {})}


def perturb(
    challenge: Derived, name: str, clean: Clean, strength, seed: int, network, look: bool
) -> Tensor:
    """Return the grey levels (B, C, H, W) that a challenge makes of clean images.

    Args:
        challenge: what is done.
        name: of the challenge in rows.
        clean: the images.
        strength: of the level.
        seed: of its random numbers.
        network: f, for attacks.
        look: make some images again among others, where the class is from outside.

    Raises:
        Faulty: if a class from outside raises, changes what it is given, or gives no such images.
    """
    if not outside(challenge):
        return challenge.perturb(clean, strength, seed, network)
    member = f"challenge {name}: {type(challenge).__qualname__}.perturb"

    def make(given: Clean, state: int | None = None) -> Tensor:
        copy = Clean(given.grey.clone(), given.labels.clone(), given.sources.copy(), given.quantise)
        with calling(member):
            if state is not None:
                reseeded(state)
            found = challenge.perturb(copy, strength, seed, network)
        _check_left(member, given, copy)
        return _grey_levels(member, found, given.grey)

    whole = make(clean)
    if not look:
        return whole
    # the last image among three, and in the same place among copies of itself
    rows = [len(whole) - 1, len(whole) // 2, 0]
    few, other = make(_rows(clean, rows)), make(_rows(clean, rows[:1] * 3), state=len(whole))
    if not torch.equal(make(_rows(clean, rows), state=len(whole)), few):
        raise Faulty(
            f"{member} makes other images of the same ones the second time: random numbers come "
            "from challenges/counter.py, from the seed and each image's source"
        )
    room = TURNED if network is not None else 0
    for alone, there in ((other[0], few[0]), (few[0], whole[-1])):
        if ((alone - there).abs() > GREY).double().mean() > room:
            raise Faulty(
                f"{member} makes another image of the same one when it is given with others: it "
                "may depend on its own pixels, label and source and on the seed alone, images "
                "stay in their order, random numbers come from challenges/counter.py"
            )
    return whole


def pixels(challenge: Derived, name: str, grey: Tensor, clean: Clean) -> np.ndarray:
    """Return grey levels as pixels, see `Derived.to_pixels`."""
    if not outside(challenge):
        return challenge.to_pixels(grey, clean)
    member = f"challenge {name}: {type(challenge).__qualname__}.to_pixels"
    with calling(member):
        found = challenge.to_pixels(grey, clean)
    shape, kind = tuple(clean.grey.shape), np.dtype(np.uint8 if clean.quantise else np.float32)
    if not isinstance(found, np.ndarray) or (found.shape, found.dtype) != (shape, kind):
        raise Faulty(f"{member} gives {type(found).__name__}: an array of {kind} {shape} is due")
    return found


def find(challenge: Given, asked: Asked) -> ImageSet:
    """Return the images of a challenge that are found or drawn, see `Given.find`.

    Raises:
        MissingData: if they are not at hand.
        Faulty: if a class from outside raises, or gives what are no such images.
    """
    if not outside(challenge):
        return challenge.find(asked)
    member = f"challenge {asked.name}: {type(challenge).__qualname__}.find"
    with calling(member):
        reseeded(asked.seed)  # what draws from the process' numbers is the same in every run
        found = challenge.find(replace(asked, clean=read_only(asked.clean)))
    return looked_at(found, member, asked.clean.shape)


@contextmanager
def lent(challenge: Derived, name: str, network: Backbone | None) -> Iterator[Backbone | None]:
    """Lend f to a challenge; one from outside gets a copy, whose weights it must leave alone.

    Raises:
        Faulty: if it changes them, since images would then depend on those before.
    """
    if network is None or not outside(challenge):
        yield network
        return
    copy = deepcopy(network)
    yield copy
    after = copy.state_dict()
    for part, tensor in network.state_dict().items():
        if not torch.equal(after[part], tensor):
            raise Faulty(
                f"challenge {name}: {type(challenge).__qualname__}.perturb changes the network "
                f"({part}): it must leave weights and buffers as they are"
            )


def _check_declared(name: str, challenge: Challenge) -> None:
    start = f"challenge {name}: {type(challenge).__qualname__}"
    if not isinstance(challenge, Derived | Given | OtherSet):
        raise Faulty(f"{start} is derived neither from Derived nor from Given (challenges/base.py)")
    kind = getattr(challenge, "kind", None)
    if kind not in KINDS:
        raise Faulty(f"{start}: {unknown('kind of challenge', str(kind), KINDS)}")
    if isinstance(challenge, Derived):
        if not isinstance(getattr(challenge, "family", None), str):
            raise Faulty(f"{start}.family is missing: a name, for the seed of random numbers")
        strengths = getattr(challenge, "strengths", None)
        if not isinstance(strengths, Sequence) or not all(map(_strength, strengths or [None])):
            raise Faulty(
                f"{start}.strengths is {strengths!r}: a list with a number for each level is due, "
                "of one for a challenge without levels"
            )
        canonical(challenge.settings())
    levels = challenge.levels
    if not isinstance(levels, tuple) or not all(type(level) is int for level in levels):
        raise Faulty(f"{start}.levels is {levels!r}: a tuple of whole numbers is due")


def _strength(value) -> bool:
    if isinstance(value, list | tuple):
        return bool(value) and all(map(_strength, value))
    return isinstance(value, int | float) and not isinstance(value, bool)


def _rows(clean: Clean, rows: list[int]) -> Clean:
    return Clean(clean.grey[rows], clean.labels[rows], clean.sources[rows], clean.quantise)


def _check_left(member: str, given: Clean, copy: Clean) -> None:
    same = {
        "grey": torch.equal(given.grey, copy.grey),
        "labels": torch.equal(given.labels, copy.labels),
        "sources": np.array_equal(given.sources, copy.sources),
    }
    for what, kept in same.items():
        if not kept:
            raise Faulty(
                f"{member} changes the clean images in place (clean.{what}): it must leave them "
                "as they are, work on a clone()"
            )


def _grey_levels(member: str, found, like: Tensor) -> Tensor:
    """Return grey levels without a graph, on the device of the clean images, checked."""
    if isinstance(found, np.ndarray) and found.dtype.kind in "fiu":
        found = torch.from_numpy(np.array(found))
    if not torch.is_tensor(found) or found.is_complex() or found.dtype == torch.bool:
        raise Faulty(f"{member} gives {type(found).__name__}: a tensor of grey levels is due")
    if found.shape != like.shape:
        raise Faulty(
            f"{member} gives images of shape {tuple(found.shape)}: {tuple(like.shape)} is due, one "
            "image for each clean one in their order"
        )
    found = found.detach().to(like.device)
    found = found if found.is_floating_point() else found.float()
    if not found.isfinite().all():
        raise Faulty(f"{member} gives grey levels that are NaN or infinite")
    low, high = float(found.min()), float(found.max())
    if low < -SLACK or high > 255 + SLACK:
        raise Faulty(
            f"{member} gives grey levels from {low:.4g} to {high:.4g}: 0 to 255 are due, "
            ".clamp(0, 255) cuts them"
        )
    if high <= 1 < float(like.max()) and not torch.equal(found, found.round()):
        raise Faulty(f"{member} gives grey levels up to {high:.4g}: 0 to 255 are due, not 0 to 1")
    return found.clamp(0, 255)
