"""Progress of long work: a bar on a terminal, plain lines elsewhere; nothing long is silent.

Whatever may take seconds is a `step`, or a `Progress` where units are counted. Steps stand inside
each other; one that goes on for two seconds without a word of its own, or of a step within, is
reported by a thread beside the work, which may be in one call for minutes.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time

from tqdm import tqdm

from gradbench.errors import printable

FIRST_SECONDS = 2.0
"""Seconds after which a step tells what it does, if nothing else was said meanwhile."""
INNERMOST_SECONDS = 1.5
"""The same for a step without others inside: it shall speak before those around it."""
PLAIN_SECONDS = 30.0
"""Seconds between two plain lines."""
TICK = 0.25
"""Seconds between two looks at the steps that are open."""


class step:
    """Tells what is being done, `what` without a full stop, if it takes long."""

    shown = True

    def __init__(self, what: str):
        self.what = what
        self._begun = self._shown = time.monotonic()
        self.reported = False
        self.has_parts = False

    def __enter__(self) -> step:
        if self.shown:
            _WATCH.open(self)
        return self

    def __exit__(self, *_):
        if self.shown:
            _WATCH.close(self)

    def tell(self, now: float) -> bool:
        """Say what is done if it is time to; tell whether this step speaks for those around it."""
        due = FIRST_SECONDS if self.has_parts else INNERMOST_SECONDS
        quiet = now - (max(self._shown, _WATCH.spoken) if self.has_parts else self._shown)
        if quiet >= (PLAIN_SECONDS if self.reported else due):
            self.reported, self._shown = True, now
            say(self._line(now))
        return self.reported

    def _line(self, now: float) -> str:
        spent = now - self._begun
        return f"{self.what} …" + (f" ({duration(spent)})" if spent >= PLAIN_SECONDS else "")


class Progress(step):
    """Counts units of work and shows rate and remaining time on standard error.

    `done` units were finished before, by a run that is resumed; of several processes one is
    `shown`. `advance` is called with the number of units done.
    """

    def __init__(
        self, what: str, total: int, unit: str = "images", done: int = 0, shown: bool = True
    ):
        super().__init__(what)
        self.shown = shown
        self.total, self.unit, self.done = total, unit, done
        self._first = done
        self._bar = None
        if shown and sys.stderr.isatty():
            self._bar = tqdm(
                desc=what, total=total, initial=done, unit=f" {unit}", dynamic_ncols=True
            )

    def __exit__(self, *_):
        super().__exit__()
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
            self.reported, self._shown = True, now
            say(self._line(now) + (f", {note}" if note else ""))

    def tell(self, now: float) -> bool:
        """As of a step; a bar speaks for itself, and is drawn anew for the time it shows."""
        if self._bar is None:
            return super().tell(now)
        self._bar.refresh()
        return True

    def _line(self, now: float) -> str:
        text = f"{self.what}: {self.done} of {self.total} {self.unit}"
        if self.done == self._first:
            spent = now - self._begun
            return text + (f", {duration(spent)}" if spent >= PLAIN_SECONDS else "")
        rate = (self.done - self._first) / max(now - self._begun, 1e-9)
        return f"{text}, {rate:.3g} a second, {duration((self.total - self.done) / rate)} left"


class _Watch:
    """The steps that are open, and the thread that looks at them while there are any."""

    def __init__(self):
        self.steps: list[step] = []
        self.lock = threading.Lock()
        self.thread: threading.Thread | None = None
        self.spoken = 0.0
        """When the last line was said, or the step that it is about ended."""

    def open(self, one: step) -> None:
        with self.lock:
            if self.steps:
                self.steps[-1].has_parts = True
            self.steps.append(one)
            if self.thread is None or not self.thread.is_alive():
                self.thread = threading.Thread(target=self._look, daemon=True)
                self.thread.start()

    def close(self, one: step) -> None:
        with self.lock, contextlib.suppress(ValueError):  # a forked process begins with none
            self.steps.remove(one)
            if one.reported:  # its line was true until now
                self.spoken = time.monotonic()

    def tell(self, now: float) -> None:
        """Let the innermost step speak that has something to say."""
        with self.lock:
            for one in reversed(self.steps):
                if one.tell(now):
                    return

    def _look(self) -> None:
        while True:
            time.sleep(TICK)
            with self.lock:
                if not self.steps:
                    self.thread = None
                    return
            with contextlib.suppress(OSError, ValueError):  # nobody reads standard error any more
                self.tell(time.monotonic())


_WATCH = _Watch()
if hasattr(os, "register_at_fork"):
    # threads do not live on in a forked process
    os.register_at_fork(after_in_child=_WATCH.__init__)


def say(text: str) -> None:
    """Write one line to standard error, clear of any bar."""
    _WATCH.spoken = time.monotonic()
    text = printable(text)
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
