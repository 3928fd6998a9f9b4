"""Signals that end a process, made an exit that cleans up."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

ENDING = ("SIGTERM", "SIGHUP")


@contextmanager
def exit_on_signals() -> Iterator[None]:
    """Leave the block by SystemExit on signals that would end the process on the spot.

    So whatever the block opened is closed and half-written files go. What the process ignores
    (SIGHUP under nohup) stays ignored; outside the main thread nothing changes.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (getattr(signal, name) for name in ENDING if hasattr(signal, name)):
            if signal.getsignal(number) is signal.SIG_DFL:
                before[number] = signal.signal(number, lambda got, _: sys.exit(128 + got))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
