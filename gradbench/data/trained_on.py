"""What is known of the images that a network was trained on, and of the hold-out that follows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gradbench.data.imageset import ImageSet
from gradbench.errors import GradbenchError

ALL, WITHOUT = "all", "without_hold_out"
KEY = "backbone.trained_on"


@dataclass(frozen=True)
class TrainedOn:
    """What is known of the images that one network was trained on.

    Attributes:
        what: `all` of the training set, or `without_hold_out`.
        names: source ids of the images, in place of `what`; None where they are not listed.
        file: that lists the names.
        prints: fingerprints of the training images and of the hold-out (`train`, `hold_out`), as a
            checkpoint of gradbench's own tells them; they go before `what` where they fit.
        sure: somebody said so; otherwise `all` is only assumed.
    """

    what: str = WITHOUT
    names: frozenset[str] | None = None
    file: str = ""
    prints: Mapping[str, str] | None = None
    sure: bool = True

    def check(self, whole: ImageSet, test: ImageSet) -> None:
        """Refuse a list that has nothing to do with the set, or names images to be measured.

        Raises:
            GradbenchError: naming the file.
        """
        if self.names is None:
            return
        said = f"{KEY}={self.file}"
        if self.names.isdisjoint(whole.sources.tolist()):
            raise GradbenchError(
                f"{said} names no training image of {whole.name}: write the names of those that "
                f"the network was trained on, one a line, for example {whole.sources[0]}"
            )
        tested = sorted(self.names.intersection(test.sources.tolist()))
        if tested:
            raise GradbenchError(
                f"{said} names {len(tested):,} test images ({tested[0]}), and a network cannot be "
                "measured on images that it was trained on: take them out of the test set"
            )

    def masks(
        self, whole: ImageSet, kept: np.ndarray, parts: tuple[ImageSet, ImageSet]
    ) -> tuple[np.ndarray, np.ndarray, bool]:
        """Return which images f may have seen, which are the bank, and whether it saw all of that.

        Args:
            whole: the training set.
            kept: (N,) bool, those that gradbench keeps from its own networks.
            parts: the images without and with these.

        Returns:
            (N,) bool; (N,) bool; True where f was trained on every image of the bank.
        """
        if self.names is not None:
            listed = np.array([source in self.names for source in whole.sources.tolist()])
            return listed, listed, True
        if self.prints is not None:
            train, hold_out = (part.fingerprint for part in parts)
            if (self.prints.get("train"), self.prints.get("hold_out")) == (train, hold_out):
                return ~kept, ~kept, True
        elif self.what == WITHOUT:
            return ~kept, ~kept, True
        return np.ones(len(whole), bool), ~kept, self.sure


@dataclass(frozen=True)
class Knowledge:
    """What is known of a run's hold-out and bank; without arguments what holds for own networks.

    Attributes:
        role: `train` or `test`, of whose images the hold-out is taken.
        unseen: f was trained on no image of it.
        trained: f was trained on every image of the bank; otherwise it may have been.
        why: the hold-out is not the usual one.
    """

    role: str = "train"
    unseen: bool = True
    trained: bool = True
    why: str = ""

    @property
    def hold_out(self) -> str:
        """Name of the hold-out."""
        if not self.unseen:
            return "hold-out that f may have been trained on"
        return "hold-out" if self.role == "train" else "hold-out of test images"

    @property
    def bank(self) -> str:
        """Name of the bank."""
        trained = self.trained
        return "f's training images" if trained else "images that f may have been trained on"

    @property
    def of_threshold(self) -> str:
        """What a reader of a verdict must know of the images that its threshold comes from."""
        if not self.unseen:
            return "f may have been trained on them, so more than 5 % of new ones may be above"
        return "" if self.role == "train" else "taken from the test images"

    def named(self, clean_seen: str) -> str:
        """Return what `Detector.clean_seen` says, in words that are true of this run."""
        words = {"hold-out": self.hold_out, "f's training images": self.bank}
        return ", ".join(words.get(part, part) for part in clean_seen.split(", "))

    def sentence(self, hold_out: ImageSet, test: ImageSet) -> str:
        """Return a sentence on the hold-out, without a full stop."""
        count = f"{len(hold_out):,}"
        if not len(hold_out):
            return "none"
        if not self.unseen:
            return f"{count} training images that f may have been trained on: {self.why}"
        if self.role == "test":
            return f"{count} of {len(test):,} test images, which are not measured: {self.why}"
        return f"{count} training images that f was not trained on"


def read_names(path: str) -> frozenset[str]:
    """Return the names of a list, one a line; empty lines count for nothing.

    Raises:
        GradbenchError: if there is no such file, or it is no text.
    """
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as fault:
        reason = getattr(fault, "strerror", None) or "it is no UTF-8 text"
        raise GradbenchError(
            f"{KEY}={path} cannot be read ({reason}): choose {ALL}, {WITHOUT}, or a file that "
            "lists the names of the images, one a line"
        ) from fault
    return frozenset(filter(None, map(str.strip, text.splitlines())))
