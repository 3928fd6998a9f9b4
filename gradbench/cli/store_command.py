"""`gradbench store`: look at, verify and prune the kept products."""

from __future__ import annotations

import math
import os
import shutil
import sys
import time
from argparse import Namespace
from pathlib import Path

from gradbench.cli.arguments import Parser, split_words
from gradbench.errors import GradbenchError, printable
from gradbench.store import MANIFEST, Store, find_damage
from gradbench.support.locks import try_file_lock
from gradbench.support.progress import step

LEFT_ALONE = {".part": 3600, ".scratch": 7 * 86400}
"""Seconds for which unfinished work is not touched: another process may be at it."""
EPILOG = """\
  ls      products by step: how many, how large, how old
  verify  compare every file with its checksum; damaged products are named (exit code 1)
  prune   remove damaged products and what killed runs left (unfinished parts after an hour,
          checkpoints of unfinished training after 7 days); with days=N also products that were
          not used for N days; what another process is making is left alone
"""


def configure(parser: Parser) -> None:
    """Add the arguments of the command."""
    parser.epilog = EPILOG
    parser.add_argument("action", choices=("ls", "verify", "prune"), metavar="ACTION")
    parser.add_argument(
        "words", nargs="*", metavar="store=DIR | days=N", help="where the store is; days unused"
    )


def main(args: Namespace) -> None:
    """Look through the store."""
    names, settings, _ = split_words(args.words, ("store", "days"), "store")
    if names:
        raise GradbenchError(f"store takes no {printable(names[0])}: store=DIR, days=N")
    root = settings.get("store") or os.environ.get("GRADBENCH_STORE") or "outputs/store"
    root = Path(root).expanduser()
    if not root.is_dir():
        raise GradbenchError(f"there is no store at {root}: name one with store=DIR")
    days = _days(settings.get("days"))
    with step(f"looking through {root}"):
        if args.action == "prune":
            _prune(Store(root), days)
        else:
            {"ls": _list, "verify": _verify}[args.action](Store(root))


def _list(store: Store) -> None:
    steps: dict[str, list[tuple[int, float]]] = {}
    for folder, manifest in store.products():
        size = sum(size for size, _ in manifest.get("files", {}).values())
        age = time.time() - (folder / MANIFEST).stat().st_mtime
        steps.setdefault(folder.parent.name, []).append((size, age))
    for name, products in steps.items():
        sizes, ages = zip(*products)
        print(
            f"{printable(name):<12}{len(products):>6} products {sum(sizes) / 2**20:>9.1f} MiB"
            f"   last used {min(ages) / 86400:.0f} to {max(ages) / 86400:.0f} days ago"
        )
    for path in store.leftovers():
        print(f"unfinished: {printable(path)}")


def _verify(store: Store) -> None:
    folders = [folder for folder, _ in store.products()]
    damaged = 0
    for folder in folders:
        if damage := find_damage(folder):
            damaged += 1
            print(printable(f"{folder}: {damage}"))
    print(f"{len(folders)} products, {damaged} damaged")
    if damaged:
        print(
            f"gradbench: {damaged} of {len(folders)} products are damaged; the next run that needs "
            "them makes them anew, `gradbench store prune` removes them",
            file=sys.stderr,
        )
        sys.exit(1)


def _prune(store: Store, days: float) -> None:
    removed, freed, busy = 0, 0, 0
    for path in [*store.leftovers(), *(folder for folder, _ in store.products())]:
        if not _is_unneeded(path, days):
            continue
        lock = store.root / "locks" / f"{path.parent.name}-{path.stem}.lock"
        try:
            with try_file_lock(lock) as is_ours:
                if not is_ours:
                    busy += 1
                elif _is_unneeded(path, days):  # still: another process may have mended it
                    freed += sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
                    shutil.rmtree(path)
                    removed += 1
        except OSError as fault:
            raise GradbenchError(f"{path} cannot be removed: {fault.strerror}") from fault
    print(f"removed {removed} folders, {freed / 2**20:.1f} MiB")
    if busy:
        print(f"left {busy} that another process is making")


def _is_unneeded(path: Path, days: float) -> bool:
    try:
        if path.suffix in LEFT_ALONE:
            return time.time() - path.stat().st_mtime > LEFT_ALONE[path.suffix]
        unused = (time.time() - (path / MANIFEST).stat().st_mtime) / 86400
    except FileNotFoundError:  # finished or removed meanwhile
        return False
    return unused >= days or find_damage(path) is not None


def _days(text: str | None) -> float:
    try:
        days = math.inf if text is None else float(text)
    except ValueError:
        days = -1
    if not days >= 0:
        raise GradbenchError(f"days={text}: write a number of days, 0 for all products")
    return days
