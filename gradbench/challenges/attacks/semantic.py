"""The semantic attack: other colours, the same shapes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gradbench.backbones.backbone import Backbone
from gradbench.challenges.attacks.base import Adversarial, logits_of
from gradbench.challenges.base import CleanBatch
from gradbench.challenges.colour import to_hsv
from gradbench.challenges.counter import image_keys, uniform
from gradbench.errors import GradbenchError


@dataclass(kw_only=True, eq=False)
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

    There are at most `trials`. Both shifts are multiplied by `strength`, 1 as in the paper.
    """

    trials: int = 1000
    strength: float | str = 1.0

    family = "semantic"
    budget = "strength"
    leaves_early = True

    @property
    def passes(self) -> float:
        """One for each trial at most, forward alone."""
        return self.trials / 3

    def attack(self, clean: CleanBatch, strength: float, seed: int, network: Backbone) -> Tensor:
        """Return attacked grey levels of images of one or three channels."""
        grey, labels, channels = clean.grey, clean.labels, clean.grey.shape[1]
        if channels not in (1, 3):
            raise GradbenchError(
                f"semantic shifts hue and saturation, and images of {channels} channels have none: "
                "choose images of three channels"
            )
        attacked = grey.clone()
        if channels == 1 or not strength:
            return attacked
        keys = image_keys(seed, self.family, clean.sources).to(grey.device)
        drawn = uniform(keys, (self.trials, 2))
        growth = torch.arange(self.trials, device=grey.device) / self.trials
        hue, saturation = strength * drawn[..., 0], strength * (2 * drawn[..., 1] - 1) * growth
        colours = to_hsv(grey / 255)
        left = torch.nonzero(logits_of(network, grey).argmax(1) == labels).squeeze(1)
        trial = 0
        while trial < self.trials and len(left):
            several = slice(trial, trial + max(1, len(grey) // len(left)))
            tried = _shifted(colours[left], hue[left, several], saturation[left, several])
            tried = tried.round_() if clean.quantise else tried
            count = tried.shape[1]
            predicted = logits_of(network, tried.flatten(0, 1)).argmax(1).view(-1, count)
            errs = predicted != labels[left, None]
            done, first = errs.any(1), errs.int().argmax(1)
            attacked[left[done]] = tried[done, first[done]]
            left, trial = left[~done], trial + count
        return attacked


def _shifted(colours: Tensor, hue: Tensor, saturation: Tensor) -> Tensor:
    """Return (B, T, 3, H, W) grey levels of (B, 3, H, W) colours after (B, T) shifts."""
    h, s, v = colours[:, None].unbind(2)
    h = (h + hue[..., None, None]).remainder(1)
    s = (s + saturation[..., None, None]).clamp(0, 1)
    return hsv_to_rgb(torch.stack([h, s, v.expand_as(h)], 2)).mul(255).clamp_(0, 255)


def hsv_to_rgb(hsv: Tensor) -> Tensor:
    """Return (..., 3, H, W) RGB in [0, 1] of hue, saturation and value, on any device.

    Equal to `colour.to_rgb` but for the last bit, which kept attacks hang on. Each channel is
    V - V S max(0, min(k, 4 - k, 1)), k = (n + 6 H) mod 6, n = 5, 3, 1.
    """
    hue, saturation, value = hsv.unbind(-3)
    shift = torch.tensor([5.0, 3.0, 1.0], dtype=hsv.dtype, device=hsv.device)[:, None, None]
    k = (shift + 6 * hue.unsqueeze(-3)).remainder(6)
    drop = torch.minimum(k, 4 - k).clamp(0, 1)
    return value.unsqueeze(-3) * (1 - saturation.unsqueeze(-3) * drop)
