"""The prices behind the gradient engine's choice of routes (gradbench/gradients/costs.py).

    python scripts/benchmarks/routes.py
    python scripts/benchmarks/routes.py --device cuda --write

Times every route of layers as they occur in networks, fits the price of each kind of work by least
squares of relative errors, and tells how often, and at what loss, the static choice misses the
fastest route. `--write` puts the prices where the engine reads them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from datetime import UTC, datetime
from functools import partial
from statistics import median

import harness
import numpy as np
import torch
from scipy.optimize import nnls

from gradbench.backbones.devices import find_device
from gradbench.gradients.costs import PRICES, Work
from gradbench.gradients.precision import arithmetic
from gradbench.gradients.rules.base import Rule
from gradbench.gradients.rules.convolution import Convolution, Geometry
from gradbench.gradients.rules.linear import Linear
from gradbench.report import provenance

SLOWEST = 30
"""A route whose multiplications alone are so many times those of another is not timed."""


@dataclass(frozen=True)
class Layer:
    """A layer to time: a linear one where the kernel is 0, its size then the rows of an image."""

    images: int
    inputs: int
    outputs: int
    size: int
    kernel: int = 3
    stride: int = 1
    groups: int = 1

    def __str__(self) -> str:
        """Return the layer in few words."""
        if self.kernel == 0:
            return f"linear {self.inputs}-{self.outputs}, {self.size} rows"
        extra = f" /{self.stride}" if self.stride > 1 else ""
        extra += f" {self.groups} groups" if self.groups > 1 else ""
        return f"{self.kernel}x{self.kernel} {self.inputs}-{self.outputs} at {self.size}{extra}"

    def rule(self) -> Rule:
        """Return the rule of the layer."""
        if self.kernel == 0:
            return Linear()
        half = 0 if self.kernel == self.stride else self.kernel // 2  # patches do not overlap
        geometry = Geometry(
            *((n, n) for n in (self.kernel, self.stride)),
            ((half, half), (half, half)),
            (1, 1),
            self.groups,
        )
        return Convolution(geometry, lambda x, weight: x)

    def tensors(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Return an input and an output gradient, laid out as the engine meets them."""
        if self.kernel == 0:
            shapes = [(self.images, self.size, n) for n in (self.inputs, self.outputs)]
        else:
            after = (self.size - 1) // self.stride + 1
            shapes = [(self.images, self.inputs, self.size, self.size)]
            shapes += [(self.images, self.outputs, after, after)]
        x, delta = (torch.randn(shape, device=device) for shape in shapes)
        if x.ndim == 4 and device.type == "cpu":
            x, delta = (t.contiguous(memory_format=torch.channels_last) for t in (x, delta))
        return x, delta


LAYERS = [
    # CIFAR ResNets of three widths: stem, and the four stages
    *(Layer(32, 3, w, 32) for w in (16, 32, 64)),
    *(Layer(32, w * s, w * s, 32 // s) for w in (16, 32, 64) for s in (1, 2, 4, 8)),
    *(Layer(32, w * s, w * s * 2, 32 // s, stride=2) for w in (32, 64) for s in (1, 2, 4)),
    *(Layer(32, w * s, w * s * 2, 32 // s, 1, 2) for w in (32, 64) for s in (1, 2, 4)),
    # DenseNet-BC 100-12
    *(Layer(32, c, 48, s, 1) for c, s in ((24, 32), (192, 32), (150, 16), (290, 16), (340, 8))),
    *(Layer(32, 48, 12, s) for s in (32, 16, 8)),
    # bottleneck networks on images of 224 pixels
    Layer(4, 3, 64, 224, 7, 2),
    *(Layer(4, 64 * s, 64 * s, 56 // s) for s in (1, 2, 4, 8)),
    *(Layer(4, 256 * s, 64 * s, 56 // s, 1) for s in (1, 2, 4, 8)),
    *(Layer(4, 64 * s, 256 * s, 56 // s, 1) for s in (1, 2, 4, 8)),
    # grouped and depthwise layers
    *(Layer(4, 128 * s, 128 * s, 56 // s, 3, 1, 32) for s in (1, 2, 4, 8)),
    *(Layer(4, c, c, s, k, 1, c) for c, s, k in ((144, 56, 3), (240, 28, 5), (960, 7, 3))),
    *(Layer(32, c, c, s, 3, 1, c) for c, s in ((96, 16), (384, 4))),
    *(Layer(32, a, b, 1, 0) for a, b in ((64, 10), (512, 10), (512, 1000), (2048, 1000))),
    # patches and tokens
    Layer(4, 3, 768, 224, 16, 16),
    *(Layer(4, a, b, 197, 0) for a, b in ((768, 2304), (768, 768), (768, 3072), (3072, 768))),
    *(Layer(8, a, b, 64, 0) for a, b in ((64, 64), (96, 384), (384, 96))),
]


Measured = dict[Layer, dict[str, tuple[Work, float]]]
"""Layer -> route -> its work, and its median time for one image in nanoseconds."""


def time_routes(layers: Sequence[Layer], rounds: int, device: torch.device) -> Measured:
    """Time every route of layers, but for those that would take minutes."""
    found: Measured = {}
    for layer in layers:
        rule, (x, delta) = layer.rule(), layer.tensors(device)
        routes = rule.routes(x.shape, delta.shape, device.type)
        least = min(work.multiplications for work in routes.values())
        runs = {
            name: partial(rule.norms, x, delta, name)
            for name, work in routes.items()
            if work.multiplications <= SLOWEST * least and not _is_hopeless(name, layer)
        }
        seconds = harness.time_in_turn(runs, rounds, device, shortest=0).seconds
        found[layer] = {n: (routes[n], median(seconds[n]) / layer.images * 1e9) for n in seconds}
    return found


def _is_hopeless(route: str, layer: Layer) -> bool:
    """Tell whether a route would take minutes: loops over small groups, Grams of many positions."""
    if layer.kernel == 0:
        return False
    many = layer.groups > 32
    return (route != "native" and many) or (route == "gram" and layer.size > 32)


def fit_prices(measured: Measured) -> dict[str, dict[str, float]]:
    """Return route -> nanoseconds per unit of work, by least squares of relative errors."""
    kinds = [f.name for f in fields(Work)]
    found = {}
    for route in sorted({name for routes in measured.values() for name in routes}):
        pairs = [routes[route] for routes in measured.values() if route in routes]
        times = np.array([nanoseconds for _, nanoseconds in pairs])
        rows = np.array([astuple(work) for work, _ in pairs], dtype=float) / times[:, None]
        scale = np.where(rows.max(0) > 0, rows.max(0), 1)
        solution, _ = nnls(rows / scale, np.ones(len(rows)))
        found[route] = {k: float(f"{v:.3g}") for k, v in zip(kinds, solution / scale)}
    return found


def report(measured: Measured, prices: dict[str, dict[str, float]]) -> str:
    """Return measured and modelled microseconds per image, and what the choice loses."""
    lines, taken, best, missed = [], 0.0, 0.0, 0
    for layer, routes in measured.items():
        modelled = {
            name: sum(n * p for n, p in zip(astuple(work), prices[name].values()))
            for name, (work, _) in routes.items()
        }
        choice = min(modelled, key=modelled.__getitem__)
        fastest = min(routes, key=lambda name: routes[name][1])
        taken, best = taken + routes[choice][1], best + routes[fastest][1]
        missed += choice != fastest
        cells = ", ".join(
            f"{name} {nanoseconds / 1000:.0f} ({modelled[name] / 1000:.0f})"
            for name, (_, nanoseconds) in routes.items()
        )
        lines.append(f"{layer!s:<32} {cells}{'' if choice == fastest else f'  <- takes {choice}'}")
    lines.append(
        f"microseconds per image, measured (modelled); the choice misses the fastest route in "
        f"{missed} of {len(measured)} layers and takes {taken / best:.3f} of the least total time"
    )
    return "\n".join(lines)


def write_prices(device: torch.device, prices: dict[str, dict[str, float]]) -> None:
    """Write the prices of a kind of device into the package, with where they come from."""
    content = json.loads(PRICES.read_text())
    content["nanoseconds"][device.type] = prices
    content["measured"][device.type] = {
        "by": "scripts/benchmarks/routes.py --write",
        "processor": provenance.hardware(device)["processor"],
        "threads": torch.get_num_threads(),
        "device": str(device),
        "torch": torch.__version__,
        "date": datetime.now(UTC).date().isoformat(),
    }
    PRICES.write_text(json.dumps(content, indent=2) + "\n")
    print(f"prices of {device.type} are in {PRICES.name}")


def main() -> None:
    """Run the benchmark."""
    parser = harness.options_parser(__doc__, ("rounds",), rounds=5)
    parser.add_argument("--write", action="store_true", help=f"write the prices to {PRICES.name}")
    options = parser.parse_args()
    harness.start(options)
    device = find_device(options.device)
    with arithmetic("float32", device):
        measured = time_routes(LAYERS, options.rounds, device)
    prices = fit_prices(measured)
    print(report(measured, prices))
    print(json.dumps({device.type: prices}))
    if options.write:
        write_prices(device, prices)


if __name__ == "__main__":
    harness.main_of(main)
