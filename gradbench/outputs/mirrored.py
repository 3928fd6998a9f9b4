"""Any output of gradbench for the image seen in a mirror."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from gradbench.backbones.backbone import Backbone
from gradbench.errors import GradbenchError
from gradbench.outputs.base import BatchContext, Needs, Output
from gradbench.outputs.catalogue import built_in


class Mirrored(Output):
    """`mirrored/<output>`: an output of f for the image with left and right exchanged, (B, ...).

    For networks that were trained with mirrored images, so that both views are in distribution.
    All mirrored outputs of a batch share a pass of their own.

    Args:
        of: the output, for example `logits` or `squared_norms/ones/bce`.

    Raises:
        GradbenchError: for an unknown output, or one that learns from training images.
    """

    parameters = ("of",)

    def __init__(self, of: str):
        self.of = built_in().find(of)
        if self.of.learns_from:
            raise GradbenchError(
                f"mirrored/{of}: {of} learns from training images, which it does not in a mirror; "
                "choose another output"
            )
        self.needs = Needs(mirrored=(self.of.needs,))

    def of_network(self, backbone: Backbone) -> Sequence[Output]:
        """Return this output, or one for each layer where that which is mirrored is several."""
        inner = self.of.of_network(backbone)
        if inner == [self.of]:
            return [self]
        return [built_in().find(f"mirrored/{one.name}") for one in inner]

    def of_members(self, members: Sequence[tuple[Backbone, str]]) -> Output:
        """Return this output, where it is one of all networks of a run, with these."""
        bound = copy.copy(self)
        bound.of = self.of.of_members(members)
        return bound

    @property
    def weights(self) -> str:
        """The digest of the networks where it is not read off f."""
        return self.of.weights

    @property
    def identity(self) -> dict[str, Any]:
        """Its version and that of the output that is mirrored."""
        return {"version": self.version, "of": self.of.identity}

    def read(self, context: BatchContext) -> Tensor:
        """Return the values of the mirrored images."""
        return self.of.read(context.mirrored)
