"""The semantic attack: other colours, the same shapes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gradbench.backbones.backbone import Backbone
from gradbench.challenges.attacks.base import Adversarial
from gradbench.challenges.attacks.colour import hsv_to_rgb
from gradbench.challenges.attacks.objectives import predict
from gradbench.challenges.base import CleanBatch
from gradbench.challenges.colour import to_hsv
from gradbench.challenges.counter import image_keys, uniform
from gradbench.errors import GradbenchError


class Semantic(Adversarial):
    """Random shifts of hue and saturation until f errs (Hosseini and Poovendran 2018).

    Trial i of T shifts all hues of an image by dh ~ U(0, 1) and all saturations by
    ds ~ U(-1, 1) i / T: H' = (H + dh) mod 1, S' = clip(S + ds, 0, 1), V stays. An image is kept
    from the first trial that f takes for another class, judged after rounding to the nearest grey
    levels, and then leaves. Images that f errs on already, and those that withstand all trials,
    stay as they are, and so do images of one channel, which have neither hue nor saturation.

    Once few images are left, several trials of each are looked at in one pass; which is the first
    does not change.

    Differs from the paper: dh and ds come from a generator keyed by seed and image.

    Args:
        trials: at most.
        strength: both shifts are multiplied by it; 1 as in the paper.
        keep: see `Adversarial`.
        noisy_negatives: see `Adversarial`.
        noise: see `Adversarial`.

    Raises:
        GradbenchError: for a setting out of range.
    """

    family = "semantic"
    leaves_early = True

    def __init__(
        self,
        *,
        trials: int = 1000,
        strength: float | str = 1.0,
        keep: str = "all",
        noisy_negatives: bool = False,
        noise: float = 0.0625,
    ):
        super().__init__(self.real("strength", strength), keep, noisy_negatives, noise)
        self.trials = self.whole("trials", trials)
        self.passes = self.trials / 3  # forward alone

    def settings(self) -> Mapping[str, Any]:
        """Return the number of trials, by which shifts are scaled."""
        return {"trials": self.trials}

    def attack(self, clean: CleanBatch, strength: float, seed: int, network: Backbone) -> Tensor:
        """Return attacked grey levels.

        Raises:
            GradbenchError: for images of neither one nor three channels.
        """
        grey, labels, channels = clean.grey, clean.labels, clean.grey.shape[1]
        if channels not in (1, 3):
            raise GradbenchError(
                f"semantic shifts hue and saturation, and images of {channels} channels have none: "
                "choose images of three channels"
            )
        found = grey.clone()
        if channels == 1 or not strength:
            return found
        keys = image_keys(seed, self.family, clean.sources).to(grey.device)
        drawn = uniform(keys, (self.trials, 2))
        growth = torch.arange(self.trials, device=grey.device) / self.trials
        hue, saturation = strength * drawn[..., 0], strength * (2 * drawn[..., 1] - 1) * growth
        colours = torch.stack(to_hsv(grey / 255), 1)
        left = torch.nonzero(predict(network, grey) == labels).squeeze(1)
        trial = 0
        while trial < self.trials and len(left):
            several = slice(trial, trial + max(1, len(grey) // len(left)))
            tried = _shifted(colours[left], hue[left, several], saturation[left, several])
            tried = tried.round_() if clean.quantise else tried
            count = tried.shape[1]
            seen = predict(network, tried.flatten(0, 1)).view(-1, count)
            errs = seen != labels[left, None]
            done, first = errs.any(1), errs.int().argmax(1)
            found[left[done]] = tried[done, first[done]]
            left, trial = left[~done], trial + count
        return found


def _shifted(colours: Tensor, hue: Tensor, saturation: Tensor) -> Tensor:
    """Return (B, T, 3, H, W) grey levels of (B, 3, H, W) colours after (B, T) shifts."""
    h, s, v = colours[:, None].unbind(2)
    h = (h + hue[..., None, None]).remainder(1)
    s = (s + saturation[..., None, None]).clamp(0, 1)
    return hsv_to_rgb(torch.stack([h, s, v.expand_as(h)], 2)).mul(255).clamp_(0, 255)
