"""Tells how every parameter's statistics are computed, and what the cost model thinks of it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any, TextIO

from torch import Tensor, nn

from gradbench.gradients.arguments import check_images, check_options, make_task
from gradbench.gradients.engine import compute


@dataclass(frozen=True)
class ParameterRoute:
    """The rule, route and cost of one parameter tensor.

    `rule` is the kind of layer, empty where no rule is used; `route` one of outer, direct, gram,
    native, materialised, 'one image at a time', the same with 'too' (it has a rule, but stands
    beside a tensor that has none), or unused. `microseconds` is the modelled cost for one image,
    None where the model has none, and `others` that of the routes that were not taken.
    """

    name: str
    rule: str
    route: str
    microseconds: float | None
    others: dict[str, float]


def explain(
    model: nn.Module, images: Tensor, *, file: TextIO | None = None, **options: Any
) -> list[ParameterRoute]:
    """Print layer, rule, route and modelled cost of every parameter tensor, and return them.

    One pass over two images is made. Routes are chosen by a static model of shapes and kind of
    device; its prices come from `scripts/benchmarks/routes.py`. Options and errors are those of
    `squared_norms`; `file` None is standard output.
    """
    check_options(options)
    task = make_task(model, check_images(images)[:2], **options)
    lines = []
    for name, route in compute(task)[1].items():
        others = {name: cost / 1000 for name, cost in route.costs.items()}
        cost = others.pop(route.route, None)
        lines.append(ParameterRoute(name, route.kind, route.route, cost, others))
    print(_table(lines), file=file or sys.stdout)
    return lines


def _table(lines: list[ParameterRoute]) -> str:
    rows = [("parameter", "rule", "route", "us/image", "instead of")]
    for line in lines:
        others = ", ".join(f"{route} {cost:.0f}" for route, cost in line.others.items())
        cost = "" if line.microseconds is None else f"{line.microseconds:.0f}"
        rows.append((line.name, line.rule or "-", line.route, cost, others))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    return "\n".join(
        f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:<{widths[2]}}  {d:>{widths[3]}}  {e}".rstrip()
        for a, b, c, d, e in rows
    )
