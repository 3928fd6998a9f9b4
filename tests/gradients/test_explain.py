"""`explain` says what `squared_norms` does, and its costs follow the work."""

import io

import pytest
import torch
from _gradient_settings import case
from _gradient_truth import ALONE, BESIDE
from torch import nn

from gradbench.errors import GradbenchError
from gradbench.gradients import explain, squared_norms
from gradbench.gradients.costs import Work, nanoseconds, prices

NETWORKS = [
    "resnet",
    "vision",
    "twice",
    "bare",
    "recurrent",
    "windows",
    "transposed3d",
    "embedding",
]


def network(name: str) -> tuple[nn.Module, torch.Tensor]:
    if name == "resnet":
        layers = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten()
        return nn.Sequential(*layers, nn.Linear(1024, 4)).eval(), torch.rand(3, 3, 8, 8)
    return case(name).model, case(name).images


@pytest.mark.parametrize("name", NETWORKS)
def test_lines_say_what_is_done(name):
    model, images = network(name)
    lines = explain(model, images, file=io.StringIO())
    found = squared_norms(model, images)
    assert [line.name for line in lines] == found.names
    assert [f"{line.rule} {line.route}".strip() for line in lines] == list(found.routes.values())
    for line in lines:
        if line.route in ("materialised", "unused", ALONE, BESIDE):
            assert line.microseconds is None
            assert line.others == {}
        else:
            assert 0 < line.microseconds <= min(line.others.values(), default=torch.inf)


def test_prints_a_table(capsys):
    model, images = network("resnet")
    lines = explain(model, images)
    printed = capsys.readouterr().out
    rows = printed.splitlines()
    assert rows[0].split()[:3] == ["parameter", "rule", "route"]
    assert len(rows) == 1 + len(lines)
    for row, line in zip(rows[1:], lines):
        words = row.split()
        assert words[:3] == [line.name, line.rule, line.route]
        if line.microseconds is not None:
            assert float(words[3]) == round(line.microseconds)
        assert all(route in row for route in line.others)
        assert row == row.rstrip()
    file = io.StringIO()
    explain(model, images, file=file)
    assert capsys.readouterr().out == ""
    assert file.getvalue() == printed


def test_takes_the_options_of_squared_norms():
    model, images = network("resnet")
    lines = explain(
        model,
        images,
        file=io.StringIO(),
        parameters=["0.weight", "4.weight"],
        routes="gram",
        loss="mse",
    )
    assert [(line.name, line.route) for line in lines] == [
        ("0.weight", "gram"),
        ("4.weight", "outer"),
    ]
    with pytest.raises(GradbenchError, match="did you mean mse or bce"):
        explain(model, images, loss="bse")
    with pytest.raises(GradbenchError, match="no images"):
        explain(model, images[:0])


def test_two_images_are_enough():
    model, images = network("resnet")
    seen = []
    with model[0].register_forward_hook(lambda m, i, o: seen.append(len(o))):
        explain(model, images, file=io.StringIO())
    assert seen == [2]


@pytest.mark.parametrize("device", ["cpu", "cuda", "never measured"])
@pytest.mark.parametrize("route", ["direct", "gram", "native", "outer"])
def test_costs_are_sane_and_grow_with_the_work(route, device):
    assert nanoseconds(Work(), route, device) == 0
    assert (
        0
        < 2 * nanoseconds(Work(10, 10, 10), route, device)
        == nanoseconds(Work(20, 20, 20), route, device)
    )
    assert all(price >= 0 for price in prices(device)[route].values())
