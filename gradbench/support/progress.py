"""Progress of long work: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm

from gradbench.support.paths import shown

PLAIN_SECONDS = 30.0
"""Seconds between two plain lines."""


class Progress:
    """Counts units of work and shows rate and remaining time on standard error.

    Used as a context manager; `advance` is called with the number of units done.

    Args:
        what: what is being done.
        total: units in all.
        unit: name of a unit, plural.
        done: units that were finished before (a resumed run).
        shown: False to show nothing: of several processes one tells.
    """

    def __init__(
        self, what: str, total: int, unit: str = "images", done: int = 0, shown: bool = True
    ):
        self.shown = shown
        self.what, self.total, self.unit, self.done = what, total, unit, done
        self._first, self._begun = done, time.monotonic()
        self._shown = self._begun
        self._bar = None
        if shown and sys.stderr.isatty():
            self._bar = tqdm(
                desc=what, total=total, initial=done, unit=f" {unit}", dynamic_ncols=True
            )

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_):
        if self._bar is not None:
            self._bar.close()

    def advance(self, count: int, note: str = "") -> None:
        """Report that `count` more units are done; `note` stands behind the numbers."""
        self.done += count
        if not self.shown:
            return
        if self._bar is not None:
            if note:
                self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(count)
            return
        now = time.monotonic()
        long = now - self._begun >= PLAIN_SECONDS
        if now - self._shown >= PLAIN_SECONDS or (long and self.done >= self.total):
            self._shown = now
            rate = (self.done - self._first) / max(now - self._begun, 1e-9)
            left = (self.total - self.done) / rate if rate else float("inf")
            say(
                f"{self.what}: {self.done} of {self.total} {self.unit}, {rate:.3g} a second, "
                f"{duration(left)} left{', ' + note if note else ''}"
            )


def say(text: str) -> None:
    """Write one line to standard error, clear of any bar."""
    text = shown(text)
    if sys.stderr.isatty():
        tqdm.write(text, file=sys.stderr)
    else:
        print(text, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Return seconds in words.

    >>> duration(42), duration(600), duration(9000)
    ('42 s', '10 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
