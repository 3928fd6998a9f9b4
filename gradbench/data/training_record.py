"""Facts about a network's training images, and about the hold-out and the bank that follow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gradbench.data.imageset import ImageSet
from gradbench.errors import GradbenchError

ALL, WITHOUT_HOLD_OUT = "all", "without_hold_out"
TRAINED_ON = "backbone.trained_on"


@dataclass(frozen=True)
class TrainingRecord:
    """What is known of the images that one network was trained on.

    Attributes:
        extent: `all` of the training set, or `without_hold_out`.
        sources: source ids of the images, in place of `extent`; None where they are not listed.
        file: that lists the ids.
        fingerprints: of the training images and of the hold-out (`train`, `hold_out`), as a
            checkpoint of gradbench's own keeps them; they go before `extent` where they fit.
        certain: somebody said so; otherwise `all` is only assumed.
    """

    extent: str = WITHOUT_HOLD_OUT
    sources: frozenset[str] | None = None
    file: str = ""
    fingerprints: Mapping[str, str] | None = None
    certain: bool = True

    def check(self, whole: ImageSet, test: ImageSet) -> None:
        """Refuse a list that has nothing to do with the set, or names images to be measured.

        Raises:
            GradbenchError: naming the file.
        """
        if self.sources is None:
            return
        setting = f"{TRAINED_ON}={self.file}"
        if self.sources.isdisjoint(whole.sources.tolist()):
            raise GradbenchError(
                f"{setting} names no training image of {whole.name}: write the names of those that "
                f"the network was trained on, one a line, for example {whole.sources[0]}"
            )
        tested = sorted(self.sources.intersection(test.sources.tolist()))
        if tested:
            raise GradbenchError(
                f"{setting} names {len(tested):,} test images ({tested[0]}), and a network cannot "
                "be measured on images that it was trained on: take them out of the test set"
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
        if self.sources is not None:
            listed = np.array([source in self.sources for source in whole.sources.tolist()])
            return listed, listed, True
        if self.fingerprints is not None:
            own = dict(zip(("train", "hold_out"), (part.fingerprint for part in parts)))
            usual = all(self.fingerprints.get(name) == own[name] for name in own)
        else:
            usual = self.extent == WITHOUT_HOLD_OUT
        if usual:
            return ~kept, ~kept, True
        return np.ones(len(whole), bool), ~kept, self.certain


@dataclass(frozen=True)
class Provenance:
    """Whether f was trained on the bank and on the hold-out; by default as for own networks.

    Attributes:
        role: `train` or `test`, of whose images the hold-out is taken.
        unseen: f was trained on no image of the hold-out.
        trained: f was trained on every image of the bank; otherwise it may have been.
        reason: why the hold-out is not the usual one, else empty.
    """

    role: str = "train"
    unseen: bool = True
    trained: bool = True
    reason: str = ""

    @property
    def hold_out_name(self) -> str:
        """The name of the hold-out."""
        if not self.unseen:
            return "hold-out that f may have been trained on"
        return "hold-out" if self.role == "train" else "hold-out of test images"

    @property
    def threshold_note(self) -> str:
        """A note on the images that a threshold comes from, empty for the usual ones."""
        if not self.unseen:
            return "f may have been trained on them, so more than 5 % of new ones may be above"
        return "" if self.role == "train" else "taken from the test images"

    def describe_clean_seen(self, clean_seen: str) -> str:
        """Return a detector's `clean_seen` with the names that its images have in this run."""
        bank = "f's training images" if self.trained else "images that f may have been trained on"
        names = {"hold-out": self.hold_out_name, "f's training images": bank}
        return ", ".join(names.get(part, part) for part in clean_seen.split(", "))

    def describe_hold_out(self, hold_out: ImageSet, test: ImageSet) -> str:
        """Return the size and the origin of the hold-out in words, without a full stop."""
        count = f"{len(hold_out):,}"
        if not len(hold_out):
            return "none"
        if not self.unseen:
            return f"{count} training images that f may have been trained on: {self.reason}"
        if self.role == "test":
            return f"{count} of {len(test):,} test images, which are not measured: {self.reason}"
        return f"{count} training images that f was not trained on"


def read_source_ids(path: str) -> frozenset[str]:
    """Return the source ids in a file, one a line; empty lines count for nothing.

    Raises:
        GradbenchError: if there is no such file, or it is no text.
    """
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as fault:
        reason = getattr(fault, "strerror", None) or "it is no UTF-8 text"
        raise GradbenchError(
            f"{TRAINED_ON}={path} cannot be read ({reason}): choose {ALL}, {WITHOUT_HOLD_OUT}, or "
            "a file that lists the names of the images, one a line"
        ) from fault
    return frozenset(filter(None, map(str.strip, text.splitlines())))
