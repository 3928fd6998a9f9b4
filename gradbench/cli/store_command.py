"""`gradbench store`: look at, verify and prune the kept products."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from gradbench.errors import GradbenchError, unknown
from gradbench.store import MANIFEST, Store, check

ACTIONS = ("ls", "verify", "prune")

LEFT_ALONE = {".part": 3600, ".scratch": 7 * 86400}
"""Seconds for which unfinished work is not touched: another process may be at it."""

HELP = """\
gradbench store ls|verify|prune [store=DIR] [days=N]

  ls      products by step: how many, how large, how old
  verify  compare every file with its checksum; damaged products are named (exit 1)
  prune   remove damaged products and what killed runs left (unfinished parts after an hour,
          checkpoints of unfinished training after 7 days); with days=N also products that were
          not used for N days
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
    if not root.is_dir():
        raise GradbenchError(f"there is no store at {root}: name one with store=DIR")
    store = Store(root)
    if action == "ls":
        _ls(store)
    elif action == "verify":
        _verify(store)
    else:
        _prune(store, _days(given.get("days")))


def _ls(store: Store) -> None:
    steps: dict[str, list[tuple[int, float]]] = {}
    for folder, manifest in store.products():
        size = sum(size for size, _ in manifest.get("files", {}).values())
        age = time.time() - (folder / MANIFEST).stat().st_mtime
        steps.setdefault(folder.parent.name, []).append((size, age))
    for step, found in steps.items():
        sizes, ages = zip(*found)
        print(
            f"{step:<12}{len(found):>6} products {sum(sizes) / 2**20:>9.1f} MiB"
            f"   last used {min(ages) / 86400:.0f} to {max(ages) / 86400:.0f} days ago"
        )
    for path in store.leftovers():
        print(f"unfinished: {path}")


def _verify(store: Store) -> None:
    total, damaged = 0, []
    for folder, _ in store.products():
        total += 1
        fault = check(folder)
        if fault:
            damaged.append(folder)
            print(f"{folder}: {fault}")
    print(f"{total} products, {len(damaged)} damaged")
    if damaged:
        raise GradbenchError(
            f"{len(damaged)} of {total} products are damaged; the next run that needs them makes "
            "them anew, `gradbench store prune` removes them"
        )


def _prune(store: Store, days: float | None) -> None:
    removed, freed = 0, 0
    old = [
        path
        for path in store.leftovers()
        if time.time() - path.stat().st_mtime > LEFT_ALONE[path.suffix]
    ]
    for folder, _ in store.products():
        unused = (time.time() - (folder / MANIFEST).stat().st_mtime) / 86400
        if check(folder) or (days is not None and unused >= days):
            old.append(folder)
    for path in old:
        freed += sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
        shutil.rmtree(path, ignore_errors=True)
        removed += 1
    print(f"removed {removed} folders, {freed / 2**20:.1f} MiB")


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
