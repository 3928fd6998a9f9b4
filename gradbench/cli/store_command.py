"""`gradbench store`: look at, verify and prune the kept products."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

from gradbench.errors import GradbenchError, printable, unknown
from gradbench.store import MANIFEST, Store, find_damage
from gradbench.support.locks import try_file_lock
from gradbench.support.progress import step

ACTIONS = ("ls", "verify", "prune")

LEFT_ALONE = {".part": 3600, ".scratch": 7 * 86400}
"""Seconds for which unfinished work is not touched: another process may be at it."""

HELP = """\
gradbench store ls|verify|prune [store=DIR] [days=N]

  ls      products by step: how many, how large, how old
  verify  compare every file with its checksum; damaged products are named (exit code 1)
  prune   remove damaged products and what killed runs left (unfinished parts after an hour,
          checkpoints of unfinished training after 7 days); with days=N also products that were
          not used for N days; what another process is making is left alone
"""


def main(words: list[str]) -> None:
    """Run the command."""
    if not words or any(w in ("-h", "--help") for w in words):
        print(HELP)
        return
    action, *settings = words
    if action not in ACTIONS:
        raise unknown("action of store", action, ACTIONS)
    given = dict(w.split("=", 1) if "=" in w else (w, "") for w in settings)
    for key in given:
        if key not in ("store", "days"):
            raise unknown("setting of store", key, ("store", "days"))
    root = Path(given.get("store") or os.environ.get("GRADBENCH_STORE") or "outputs/store")
    root = root.expanduser()
    if not root.is_dir():
        raise GradbenchError(f"there is no store at {root}: name one with store=DIR")
    store = Store(root)
    days = _days(given.get("days"))
    with step(f"looking through {root}"):
        if action == "ls":
            _ls(store)
        elif action == "verify":
            _verify(store)
        else:
            _prune(store, days)


def _ls(store: Store) -> None:
    steps: dict[str, list[tuple[int, float]]] = {}
    for folder, manifest in store.products():
        size = sum(size for size, _ in manifest.get("files", {}).values())
        age = time.time() - (folder / MANIFEST).stat().st_mtime
        steps.setdefault(folder.parent.name, []).append((size, age))
    for name, found in steps.items():
        sizes, ages = zip(*found)
        print(
            f"{printable(name):<12}{len(found):>6} products {sum(sizes) / 2**20:>9.1f} MiB"
            f"   last used {min(ages) / 86400:.0f} to {max(ages) / 86400:.0f} days ago"
        )
    for path in store.leftovers():
        print(f"unfinished: {printable(path)}")


def _verify(store: Store) -> None:
    total, damaged = 0, []
    for folder, _ in store.products():
        total += 1
        fault = find_damage(folder)
        if fault:
            damaged.append(folder)
            print(printable(f"{folder}: {fault}"))
    print(f"{total} products, {len(damaged)} damaged")
    if damaged:
        print(
            f"gradbench: {len(damaged)} of {total} products are damaged; the next run that needs "
            "them makes them anew, `gradbench store prune` removes them",
            file=sys.stderr,
        )
        sys.exit(1)


def _prune(store: Store, days: float | None) -> None:
    removed, freed, busy = 0, 0, 0
    candidates = [*store.leftovers(), *(folder for folder, _ in store.products())]
    for path in candidates:
        if not _old(path, days):
            continue
        name = f"{path.parent.name}-{path.stem}"
        try:
            with try_file_lock(store.root / "locks" / f"{name}.lock") as ours:
                if not ours:
                    busy += 1
                elif _old(path, days):  # still: another process may have mended it
                    freed += sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
                    shutil.rmtree(path)
                    removed += 1
        except OSError as fault:
            raise GradbenchError(f"{path} cannot be removed: {fault.strerror}") from fault
    print(f"removed {removed} folders, {freed / 2**20:.1f} MiB")
    if busy:
        print(f"left {busy} that another process is making")


def _old(path: Path, days: float | None) -> bool:
    """Tell whether nobody needs a folder of the store any more."""
    try:
        if path.suffix in LEFT_ALONE:
            return time.time() - path.stat().st_mtime > LEFT_ALONE[path.suffix]
        unused = (time.time() - (path / MANIFEST).stat().st_mtime) / 86400
    except FileNotFoundError:  # finished or removed meanwhile
        return False
    return (days is not None and unused >= days) or find_damage(path) is not None


def _days(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        days = float(text)
    except ValueError:
        days = -1
    if not days >= 0:
        raise GradbenchError(f"days={text}: write a number of days, 0 for all products")
    return days
