"""What functions make of parameters alone is told by rules; the rest costs no more than a loop."""

import pytest
import torch
from _gradient_expressions import EXPRESSIONS, Table, attend, scores, table_by_index
from _gradient_networks import Function, conv
from _gradient_settings import case
from _gradient_truth import ALONE, BESIDE, assert_exact, loop, randomise
from torch import Tensor, nn

from gradbench.gradients import squared_norms


class Counted(nn.Module):
    """Tells the sizes of the batches that it meets."""

    def __init__(self, inner: nn.Module, sizes: list[int]):
        super().__init__()
        # a list of its own would come back as it was
        self.inner, self.note = inner, sizes.append

    def forward(self, x: Tensor) -> Tensor:
        self.note(len(x))
        return self.inner(x)


def double(model: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return randomise(model)


def pictures(count: int = 4) -> Tensor:
    return torch.rand(count, 3, 8, 8, dtype=torch.float64)


def truth(model: nn.Module, images: Tensor) -> Tensor:
    return loop(model, images)


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_no_pass_per_image(name):
    sizes = []
    found = squared_norms(Counted(case(name).model, sizes), case(name).images)
    assert sizes == [1, 5, 1]  # the first image, the batch, the last image as a check
    assert ALONE not in found.routes.values()


@pytest.mark.parametrize("count", [1, 2, 5])
def test_one_image_first_and_a_batch_afterwards(count):
    model = double(Table(table_by_index, a=(7, 2)))
    squared_norms(model, pictures(1))
    images = pictures(count)
    found = squared_norms(model, images)
    assert set(found.routes.values()) == {"add materialised"}
    assert_exact(found.values, truth(model, images))


def with_einsum(m: Function, x: Tensor) -> Tensor:
    return m.module(torch.einsum("bchw,cd->bdhw", x, m.a) * m.b.exp())


def test_one_tensor_without_a_rule_takes_the_loop():
    images, sizes = pictures(), []
    model = Counted(double(Function(with_einsum, conv(3, 5, 3), a=(3, 3), b=(3, 1, 1))), sizes)
    for _ in range(2):
        sizes.clear()
        found = squared_norms(model, images)
        assert sum(sizes) <= 1 + 4 + 1 + 4  # of which the loop has 4
        assert found.routes.pop("inner.a") == ALONE
        assert set(found.routes.values()) == {BESIDE}
        assert_exact(found.values, truth(model, images))
    others = [n for n in found.names if n != "inner.a"]
    found = squared_norms(model, images, parameters=others)
    assert not {ALONE, BESIDE} & set(found.routes.values())
    assert_exact(found.values, truth(model, images)[:, 1:])


@pytest.mark.parametrize("routes", [None, ALONE])
def test_what_is_unused_stays_unused_in_the_loop(routes):
    model = double(Function(with_einsum, conv(3, 5, 3), a=(3, 3), b=(3, 1, 1), c=(2,)))
    found = squared_norms(model, pictures(), routes=routes)
    assert [n for n, how in found.routes.items() if how == "unused"] == ["c"]
    assert found.values[:, found.names.index("c")].eq(0).all()


def changed_afterwards(m: Function, x: Tensor) -> Tensor:
    bias = m.a * 2
    y = x + bias
    bias.mul_(3)
    return m.module(y * bias)


def seen_and_unseen(m: Function, x: Tensor) -> Tensor:
    scale = m.a.exp()
    return m.module(torch.einsum("bchw,chw->bchw", x * scale, scale.expand(3, 8, 8)))


def made_of_images(m: Function, x: Tensor) -> Tensor:
    strongest = x.flatten(2).mean(2).argmax(1)  # a row of the table for every image
    return m.module(x + m.a[strongest])


def cut_off(m: Function, x: Tensor) -> Tensor:
    return m.module(x + m.a.detach() + m.a.square())


def without_graph(m: Function, x: Tensor) -> Tensor:
    with torch.no_grad():
        shift = m.a.exp()
    return m.module(x + shift * m.a)


def gradient_inside(m: Function, x: Tensor) -> Tensor:
    scale = m.a.sin()
    with torch.enable_grad():
        y = (x.requires_grad_() * scale).square()
        (slope,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    return m.module(slope.tanh())


ODD = [changed_afterwards, seen_and_unseen, made_of_images, cut_off, without_graph, gradient_inside]


@pytest.mark.parametrize("function", ODD)
def test_odd_uses_are_exact(function):
    shape = (3, 8, 8) if function is not seen_and_unseen else (3, 1, 1)
    shape = (3, 3, 8, 8) if function is made_of_images else shape
    model, images = double(Function(function, conv(3, 5, 3), a=shape)), pictures()
    expected = truth(model, images)
    for chunk in (4, 3, 1):
        assert_exact(squared_norms(model, images, chunk=chunk).values, expected)


def test_as_many_images_as_heads():
    """A table copied once per head looks like one copied once per image."""

    def function(m: Function, x: Tensor) -> Tensor:
        return attend(scores(x) + m.a.expand(2, 4, 4), x)

    model = double(Function(function, a=(1, 4, 4)))
    for count in (1, 2, 3):
        images = pictures(count)
        assert_exact(squared_norms(model, images).values, truth(model, images))
