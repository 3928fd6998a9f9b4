"""Locks between processes that the operating system frees when their holder dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from gradbench.support.progress import say


@contextlib.contextmanager
def file_lock(path: Path, what: str) -> Iterator[None]:
    """Let one process at a time into the block; the others wait, and a killed one lets go.

    The file goes away with the lock. A process that waited must look whether its work is done
    already. `what` says what the holder does, for the message to those who wait.
    """
    while True:
        with _lock(path, what) as is_ours:
            if is_ours:
                yield
                return


def try_file_lock(path: Path) -> contextlib.AbstractContextManager[bool]:
    """Hold a lock for the block if no process has it; the context tells whether it is held."""
    return _lock(path, None)


@contextlib.contextmanager
def _lock(path: Path, what: str | None) -> Iterator[bool]:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    is_ours = True
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            is_ours = what is not None
            if is_ours:
                say(f"waiting for another process that {what}")
                fcntl.flock(handle, fcntl.LOCK_EX)
        # the holder before us may have removed the file: then a new one must be locked instead
        is_ours = is_ours and _same_file(path, handle)
        try:
            yield is_ours
        finally:
            if is_ours:
                path.unlink(missing_ok=True)
    finally:
        os.close(handle)


def _same_file(path: Path, handle: int) -> bool:
    try:
        return os.stat(path).st_ino == os.fstat(handle).st_ino
    except FileNotFoundError:
        return False
