"""The logits of all networks of a run."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gradbench.backbones.backbone import Backbone
from gradbench.backbones.shared_tensors import copy_network
from gradbench.errors import GradbenchError
from gradbench.gradients import outputs
from gradbench.outputs.base import BatchContext, Output

MEMBERS = "members"
"""Its name."""
ALONE = (
    f"{MEMBERS} are the logits of all networks of a run, and there is one: give several "
    "('seeds=[0,1,2]', of checkpoints 'backbone.checkpoint=f-{seed}.pt'), or leave out the "
    f"detectors that read {MEMBERS}"
)


class Members(Output):
    """The logits of every network of the run, in the order of `seeds`: (B, M, classes).

    The networks are told by the run, see `of_members`. Values are the same whichever of them is f,
    and are kept once.

    Raises:
        GradbenchError: if there is one network alone.
    """

    def __init__(self):
        self.networks: tuple[Backbone, ...] = ()
        self.digests: tuple[str, ...] = ()

    def of_members(self, members: Sequence[tuple[Backbone, str]]) -> Members:
        """Return the output of these networks."""
        if len(members) < 2:
            raise GradbenchError(ALONE)
        bound = copy.copy(self)
        bound.networks, bound.digests = zip(*members)
        return bound

    @property
    def weights(self) -> str:
        """One digest of all networks."""
        return hashlib.sha256(" ".join(self.digests).encode()).hexdigest()

    @property
    def identity(self) -> dict[str, Any]:
        """The version and the networks."""
        return {"version": self.version, MEMBERS: list(self.digests)}

    def read(self, context: BatchContext) -> Tensor:
        """Return the logits, from a pass of every network."""
        if not self.networks:
            raise GradbenchError(ALONE)
        images = context.images
        return torch.stack([outputs(f.to(images.device), images) for f in self.networks], dim=1)

    def __getstate__(self) -> dict[str, Any]:
        # a tensor on an accelerator would come to the same one in every worker
        return vars(self) | {"networks": tuple(copy_network(f).cpu() for f in self.networks)}
