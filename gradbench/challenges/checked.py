"""Checks of challenges whose classes are from outside: declarations, inputs and images.

Such a challenge gets copies, its images must not depend on the others of a batch, and it must leave
the attacked network as it was; a fault in it is one sentence, and the run goes on with the others.
Classes of gradbench are trusted.
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
from gradbench.challenges.base import Challenge, CleanBatch, Derived, External, ImageRequest
from gradbench.challenges.other_set import OtherSet
from gradbench.data.checked import check_images, read_only
from gradbench.data.imageset import ImageSet
from gradbench.errors import Faulty, unknown
from gradbench.store import canonical_json
from gradbench.support.code_keys import code_key, is_external
from gradbench.support.external import external_call, seed_process

KINDS = ("ood", "corruption", "adversarial")
TOLERANCE = 0.5
"""Grey levels by which an image may differ between batches: less than a level on the grid."""
OVERSHOOT = 0.01
"""Grey levels beyond 0 and 255 that rounding may leave."""
UNSTABLE = 0.25
"""Share of pixels of an attack that may differ by more: rounding turns signs of gradients."""


class UnusableChallenge(External):
    """Stands for a challenge from outside that cannot be measured: its row says why."""

    def __init__(self, kind: str, reason: str):
        self.kind, self.reason = kind, reason

    def find(self, request: ImageRequest) -> ImageSet:
        """Raise the reason."""
        raise Faulty(self.reason)


def checked_challenge(name: str, challenge: Challenge, configured: Mapping[str, Any]) -> Challenge:
    """Return the challenge, or an `UnusableChallenge` where its class from outside is faulty.

    `configured` is the content of its file, with the user's changes; its keys hold it.
    """
    if not is_external(challenge):
        return challenge
    settings = {key: value for key, value in configured.items() if key != "description"}
    object.__setattr__(challenge, "configured", settings)
    start = _member(challenge, name)
    try:
        with external_call(start):
            _check_declared(start, challenge)
    except Faulty as fault:
        kind = getattr(challenge, "kind", None)
        usual = "corruption" if isinstance(challenge, Derived) else "ood"
        return UnusableChallenge(kind if kind in KINDS else usual, str(fault))
    return challenge


def _member(challenge: Challenge, name: str, method: str = "") -> str:
    return f"challenge {name}: {type(challenge).__qualname__}{method}"


def _check_declared(start: str, challenge: Challenge) -> None:
    if not isinstance(challenge, Derived | External | OtherSet):
        raise Faulty(
            f"{start} is derived neither from Derived nor from External (challenges/base.py)"
        )
    kind = getattr(challenge, "kind", None)
    if kind not in KINDS:
        raise Faulty(f"{start}: {unknown('kind of challenge', str(kind), KINDS)}")
    if isinstance(challenge, Derived):
        if not isinstance(getattr(challenge, "family", None), str):
            raise Faulty(f"{start}.family is missing: a name, for the seed of random numbers")
        if type(challenge).to_pixels is not Derived.to_pixels:
            raise Faulty(f"{start}.to_pixels is gradbench's: perturb returns grey levels 0 to 255")
        strengths = getattr(challenge, "strengths", None)
        if not isinstance(strengths, Sequence) or not _is_strength([*strengths]):
            raise Faulty(
                f"{start}.strengths is {strengths!r}: a list with a number for each level is due, "
                "of one for a challenge without levels"
            )
        canonical_json(challenge.settings())
    levels = challenge.levels
    if not isinstance(levels, tuple) or not all(type(level) is int for level in levels):
        raise Faulty(f"{start}.levels is {levels!r}: a tuple of whole numbers is due")


def _is_strength(value) -> bool:
    if isinstance(value, list | tuple):
        return bool(value) and all(map(_is_strength, value))
    return isinstance(value, int | float) and not isinstance(value, bool)


def outside_keys(challenge: Derived) -> dict[str, Any]:
    """Return what keys add for a class from outside: its source, and all settings of its file.

    Its own `settings` may have forgotten one.
    """
    code = code_key(challenge)
    return code and {**code, "configured": getattr(challenge, "configured", {})}


def perturb(
    challenge: Derived, name: str, clean: CleanBatch, strength, seed: int, network, compare: bool
) -> Tensor:
    """Return the grey levels (B, C, H, W) that a challenge makes of clean images.

    With `compare`, a class from outside makes some of them again, among others. Raises Faulty if
    such a class raises, changes its arguments, or returns no such images.
    """
    if not is_external(challenge):
        return challenge.perturb(clean, strength, seed, network)
    member = _member(challenge, name, ".perturb")

    def make(rows: Sequence[int], state: int | None = None) -> Tensor:
        grey, labels, sources = clean.grey[rows], clean.labels[rows], clean.sources[rows]
        copy = CleanBatch(grey.clone(), labels.clone(), sources.copy(), clean.quantise)
        with external_call(member):
            if state is not None:
                seed_process(state)
            made = challenge.perturb(copy, strength, seed, network)
        for part, unchanged in (
            ("grey", torch.equal(grey, copy.grey)),
            ("labels", torch.equal(labels, copy.labels)),
            ("sources", np.array_equal(sources, copy.sources)),
        ):
            if not unchanged:
                raise Faulty(
                    f"{member} changes the clean images in place (clean.{part}): it must leave "
                    "them as they are, work on a clone()"
                )
        return _checked_grey(member, made, grey)

    whole = make(range(len(clean.sources)))
    if not compare:
        return whole
    # the last image among three, and in the same place among copies of itself
    rows = [len(whole) - 1, len(whole) // 2, 0]
    few, other = make(rows), make(rows[:1] * 3, state=len(whole))
    if not torch.equal(make(rows, state=len(whole)), few):
        raise Faulty(
            f"{member} makes other images of the same ones the second time: random numbers come "
            "from challenges/counter.py, from the seed and each image's source"
        )
    most = UNSTABLE if network is not None else 0
    for alone, among in ((other[0], few[0]), (few[0], whole[-1])):
        if ((alone - among).abs() > TOLERANCE).double().mean() > most:
            raise Faulty(
                f"{member} makes another image of the same one when it is given with others: it "
                "may depend on its own pixels, label and source and on the seed alone, images "
                "stay in their order, random numbers come from challenges/counter.py"
            )
    return whole


def find(challenge: External, request: ImageRequest) -> ImageSet:
    """Return the images of an external challenge, see `External.find`.

    Raises Faulty if a class from outside raises, or returns no such images.
    """
    if not is_external(challenge):
        return challenge.find(request)
    member = _member(challenge, request.name, ".find")
    with external_call(member):
        seed_process(request.seed)  # what draws from the process' numbers is the same in every run
        images = challenge.find(replace(request, clean=read_only(request.clean)))
    return check_images(images, member, request.clean.shape)


@contextmanager
def lend_network(
    challenge: Derived, name: str, network: Backbone | None
) -> Iterator[Backbone | None]:
    """Lend f to a challenge; one from outside gets a copy, whose weights it must leave alone.

    Otherwise images would depend on those before them.
    """
    if network is None or not is_external(challenge):
        yield network
        return
    copy = deepcopy(network)
    yield copy
    after = copy.state_dict()
    for part, tensor in network.state_dict().items():
        if not torch.equal(after[part], tensor):
            raise Faulty(
                f"{_member(challenge, name, '.perturb')} changes the network ({part}): it must "
                "leave weights and buffers as they are"
            )


def _checked_grey(member: str, made, like: Tensor) -> Tensor:
    """Return grey levels without a graph, on the device of the clean images, checked."""
    if isinstance(made, np.ndarray) and made.dtype.kind in "fiu":
        made = torch.from_numpy(np.array(made))
    if not torch.is_tensor(made) or made.is_complex() or made.dtype == torch.bool:
        raise Faulty(f"{member} gives {type(made).__name__}: a tensor of grey levels is due")
    if made.shape != like.shape:
        raise Faulty(
            f"{member} gives images of shape {tuple(made.shape)}: {tuple(like.shape)} is due, one "
            "image for each clean one in their order"
        )
    made = made.detach().to(like.device)
    made = made if made.is_floating_point() else made.float()
    if not made.isfinite().all():
        raise Faulty(f"{member} gives grey levels that are NaN or infinite")
    low, high = float(made.min()), float(made.max())
    if low < -OVERSHOOT or high > 255 + OVERSHOOT:
        raise Faulty(
            f"{member} gives grey levels from {low:.4g} to {high:.4g}: 0 to 255 are due, "
            ".clamp(0, 255) cuts them"
        )
    if high <= 1 < float(like.max()) and not torch.equal(made, made.round()):
        raise Faulty(f"{member} gives grey levels up to {high:.4g}: 0 to 255 are due, not 0 to 1")
    return made.clamp(0, 255)
