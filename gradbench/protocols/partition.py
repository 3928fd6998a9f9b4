"""Dividing groups of images into parts of equal size, by name and seed alone."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence


def shuffled(names: Iterable[str], *seed: int | str) -> list[str]:
    """Return the distinct names in an arbitrary order that the seed fixes.

    The order is that of the SHA-256 of seed and name: it depends neither on the order of the
    names nor on the version of any library.
    """
    salt = "/".join(map(str, seed))

    def key(name: str) -> bytes:
        return hashlib.sha256(f"{salt}\n{name}".encode()).digest()

    return sorted(dict.fromkeys(names), key=key)


def partition(sizes: Mapping[str, Sequence[int]], parts: int, *seed: int | str) -> dict[str, int]:
    """Give every group to one of `parts` parts, so that all sides are balanced.

    The largest groups go first, each to the part that has least of what the group brings; groups
    of equal size go in the order of `shuffled`. Where every group has one image a side, parts
    differ by at most one image on each side.

    Args:
        sizes: images of each group, one number a side (normal, abnormal).
        parts: number of parts.
        seed: of the order.

    Returns:
        The part, 0 to parts - 1, of each group.
    """
    totals = [max(sum(side), 1) for side in zip(*sizes.values())]
    loads = [[0] * len(totals) for _ in range(parts)]
    order = shuffled(sizes, *seed)
    order.sort(key=lambda name: -sum(n / total for n, total in zip(sizes[name], totals)))
    part_of = {}
    for name in order:
        # What the sum of squared shares grows by, less what is the same for every part.
        pull = [n / total**2 for n, total in zip(sizes[name], totals)]
        costs = [sum(a * b for a, b in zip(load, pull)) for load in loads]
        part_of[name] = part = costs.index(min(costs))
        for side, n in enumerate(sizes[name]):
            loads[part][side] += n
    return part_of
