"""Tells how every parameter's statistics are computed, and what the cost model thinks of it."""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields
from typing import Any, TextIO

from torch import Tensor, nn

from gradbench.errors import unknown
from gradbench.gradients.asked import Options, run
from gradbench.gradients.costs import nanoseconds
from gradbench.gradients.door import check_images


@dataclass(frozen=True)
class Line:
    """One parameter tensor.

    Args:
        name: of the parameter.
        rule: kind of layer whose rule is used; empty where none is.
        route: how: outer, direct, gram, native, formed, 'one image at a time', the same with 'too'
            (it has a rule, but stands beside a tensor that has none), or unused.
        microseconds: modelled cost of the route for one image; None where the model has none.
        others: route that was not taken -> its modelled cost.
    """

    name: str
    rule: str
    route: str
    microseconds: float | None
    others: dict[str, float]


def explain(
    model: nn.Module, images: Tensor, *, file: TextIO | None = None, **options: Any
) -> list[Line]:
    """Print layer, rule, route and modelled cost of every parameter tensor, and return the lines.

    One pass over two images is made. Routes are chosen by a static model of shapes and kind of
    device; its prices come from `gradbench bench routes`.

    Args:
        model: network in evaluation mode.
        images: at least one image.
        file: where to print; None is standard output.
        options: those of `squared_norms`.

    Raises:
        GradbenchError: as `squared_norms`.
    """
    for name in sorted(set(options) - {f.name for f in fields(Options)}):
        raise unknown("option", name, (f.name for f in fields(Options)))
    answer = run(model, check_images(images)[:2], Options(**options))
    device = next(model.parameters()).device.type
    lines = []
    for name, taken in answer.taken.items():
        costs: dict[str, float] = {}
        if taken.rule is not None and taken.route != "formed":
            works = taken.rule.routes(taken.x, taken.delta, device)
            costs = {
                route: nanoseconds(work, route, device) / 1000 for route, work in works.items()
            }
        own = costs.pop(taken.route, None)
        lines.append(Line(name, taken.kind, taken.route, own, costs))
    print(_table(lines), file=file or sys.stdout)
    return lines


def _table(lines: list[Line]) -> str:
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
