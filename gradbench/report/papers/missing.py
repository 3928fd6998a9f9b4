"""What a table lacks, and why, in words."""

from __future__ import annotations

from collections import Counter

from gradbench.report.papers.fill import NOT_BUILT, Filling


def missing(filling: Filling) -> list[str]:
    """Return how many cells of a table are measured, and how many are not for each reason."""
    empty = [cell for cell in filling.cells if not cell.numbers]
    total, done = len(filling.cells), len(filling.cells) - len(empty)
    lines = [f"{filling.table.name}: {done} of {total} cells measured"]
    marked = sum(bool(cell.marks) for cell in filling.cells)
    if marked:
        lines[0] += f", {marked} with a mark"
    reasons = Counter(cell.reason for cell in empty)
    unbuilt = {r: n for r, n in reasons.items() if r.startswith(NOT_BUILT)}
    if unbuilt:
        names = ", ".join(r.removeprefix(f"{NOT_BUILT}: ") for r in unbuilt)
        lines.append(f"  {sum(unbuilt.values())} {NOT_BUILT}: {names}")
    lines += [f"  {n} {reason}" for reason, n in reasons.items() if reason not in unbuilt]
    return lines
