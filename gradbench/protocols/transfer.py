"""Fitted on one challenge, measured on every other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gradbench.protocols.base import Grouped, Protocol, Rows


class Transfer(Grouped):
    """Detectors fitted on one challenge as `grouped` does, measured on the others.

    Args:
        name: of the protocol.
        description: one line for `gradbench list`.
        folds: of the challenge that is fitted on, at least 3.

    Raises:
        GradbenchError: for fewer than 3 folds.
    """

    def __init__(self, name: str = "transfer", description: str = "", folds: int = 5):
        super().__init__(name, description, folds)

    def settings(self) -> Mapping[str, Any]:
        """See `Protocol`."""
        return {**super().settings(), "folds": self.count}

    @property
    def told(self) -> str:
        """See `Protocol`."""
        return (
            "`DETECTOR@CHALLENGE` was fitted on other images of that challenge alone and is "
            "measured on all others. A value is the mean over its folds; every image is measured "
            "once, by a detector that saw no image of its source."
        )

    def torn(self) -> Protocol | None:
        """Return None: what twins do is measured where both are of one challenge."""
        return None

    def within(self) -> Grouped:
        """Return the protocol of a challenge measured on itself."""
        return Grouped(folds=self.count)

    def across(
        self,
        fitted: tuple[np.ndarray, np.ndarray],
        measured: tuple[np.ndarray, np.ndarray],
        seed: int | str = 0,
    ) -> list[Rows]:
        """Return for each fold of the fitted challenge what it measures of another.

        An image whose source, track or region is among those of the fitted challenge (or of its
        clean images) is measured in the fold that neither fits nor chooses with it; all others are
        divided as `grouped` divides the measured challenge. So every image is measured once, and
        a challenge is measured in the same folds whatever was fitted on, where its sources are all
        its own or all those of the clean images.

        Args:
            fitted: groups of the normal and the abnormal images of the challenge fitted on.
            measured: the same of the challenge to be measured.
            seed: of the division.

        Raises:
            GradbenchError: if the groups of a side do not fill every fold.
        """
        seen = {}
        for groups, parts in zip(fitted, self.parts(*fitted, seed)):
            seen |= zip(np.asarray(groups, dtype=str).tolist(), parts.tolist())
        sides = [
            np.array([seen.get(name, part) for name, part in zip(names, own.tolist())], dtype=int)
            for names, own in zip(
                (np.asarray(side, dtype=str).tolist() for side in measured),
                self.parts(*measured, seed),
            )
        ]
        # rotation r measures part r - 1, see `Grouped`
        turns = [(r - 1) % self.count for r in range(self.count)]
        return [Rows(*(np.flatnonzero(side == turn) for side in sides)) for turn in turns]
