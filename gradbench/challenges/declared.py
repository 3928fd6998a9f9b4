"""What the class of a challenge declares, checked before any work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gradbench.challenges.base import Asked, Challenge, Derived, Given
from gradbench.challenges.other_set import OtherSet
from gradbench.data.imageset import ImageSet
from gradbench.errors import Faulty, unknown
from gradbench.store import canonical
from gradbench.support.calling import calling
from gradbench.support.sources import outside

KINDS = ("ood", "corruption", "adversarial")


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
