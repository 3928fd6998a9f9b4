"""Locks between processes that the operating system frees when their holder dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from gradbench.support.progress import say


@contextlib.contextmanager
def held(path: Path, what: str) -> Iterator[None]:
    """Let one process at a time into the block; the others wait, and a killed one lets go.

    The file goes away with the lock. A process that waited must look whether its work is done
    already.

    Args:
        path: of the lock file; its folder is made.
        what: what the holder does, for the message to those who wait.

    Raises:
        OSError: if the file cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"waiting for another process that {what}")
                fcntl.flock(handle, fcntl.LOCK_EX)
            # the holder before us removed the file: lock the new one instead
            if _same_file(path, handle):
                try:
                    yield
                finally:
                    path.unlink(missing_ok=True)
                return
        finally:
            os.close(handle)


@contextlib.contextmanager
def held_if_free(path: Path) -> Iterator[bool]:
    """Hold a lock for the block if no process has it; do not wait.

    Args:
        path: of the lock file; its folder is made.

    Yields:
        Whether the lock is held.

    Raises:
        OSError: if the file cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        if not _same_file(path, handle):  # its holder has only just let go
            yield False
            return
        try:
            yield True
        finally:
            path.unlink(missing_ok=True)
    finally:
        os.close(handle)


def _same_file(path: Path, handle: int) -> bool:
    try:
        return os.stat(path).st_ino == os.fstat(handle).st_ino
    except FileNotFoundError:
        return False
