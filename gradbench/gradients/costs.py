"""The cost of a route: counts of work by shapes, prices by kind of device.

The choice between routes must not depend on the moment (the same images give the same bytes), so
it rests on shapes and on the constants of `costs.json`, which `scripts/benchmarks/routes.py`
measures.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

PRICES = Path(__file__).with_name("costs.json")


@dataclass(frozen=True)
class Work:
    """Counts of work for one image; the price of a unit depends on the route and the device."""

    multiplications: float = 0  # each with an addition
    elements: float = 0  # copied, added or reduced
    calls: float = 0  # steps that cost the same whatever the shapes


@cache
def prices(device: str) -> Mapping[str, Mapping[str, float]]:
    """Return route -> nanoseconds for one unit of every kind of work on a kind of device."""
    table = json.loads(PRICES.read_text())["nanoseconds"]
    # An accelerator that was never measured is more like a GPU than like a CPU.
    return table.get(device, table["cuda"])


def nanoseconds(work: Work, route: str, device: str) -> float:
    """Return the modelled time of some work for one image, in nanoseconds."""
    price = prices(device)[route]
    return sum(count * price[kind] for kind, count in asdict(work).items())
