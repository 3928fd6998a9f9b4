"""The door of challenges: what they are given, and what they hand back.

One whose class is from outside gets copies, its images must not depend on what is made beside them,
and the network that it attacks is left as it came; a fault in it is one sentence, and the run goes
on with the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradbench.backbones.backbone import Backbone
from gradbench.challenges.base import Asked, Clean, Derived, Given
from gradbench.data.checked import check_images, read_only
from gradbench.data.imageset import ImageSet
from gradbench.errors import Faulty
from gradbench.support.calling import calling, reseeded
from gradbench.support.sources import outside, source_key

GREY = 0.5
"""Grey levels by which an image may differ between batches: less than a level on the grid."""
SLACK = 0.01
"""Grey levels beyond 0 and 255 that rounding may leave."""
TURNED = 0.25
"""Share of pixels of an attack that may differ by more: rounding turns signs of gradients."""


def in_keys(challenge: Derived) -> dict[str, Any]:
    """Return what keys add for a class from outside: its source, and all settings of its file.

    Its own `settings` may have forgotten one.
    """
    code = source_key(challenge)
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
    return check_images(found, member, asked.clean.shape)


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
