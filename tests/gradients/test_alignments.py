"""Inner products and cosines with fixed directions, against autograd in float64."""

import pytest
import torch
from _gradient_settings import SETTINGS, case
from _gradient_truth import ALONE, assert_exact
from torch import Tensor, nn

from gradbench.gradients import alignments
from gradbench.gradients.costs import nanoseconds
from gradbench.gradients.rules.convolution import Convolution, Geometry

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same'")


def directions_for(model: nn.Module, seed: int = 1) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(p.shape, dtype=torch.float64, generator=generator)
        for name, p in model.named_parameters()
    }


def conv2d_rule() -> Convolution:
    geometry = Geometry((3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1))
    return Convolution(geometry, lambda x, weight: nn.functional.conv2d(x, weight, padding=1))


def true_products(name: str, directions: dict[str, Tensor]) -> Tensor:
    names = [n for n, _ in case(name).model.named_parameters()]
    rows = [
        [(g * directions[n]).sum() for n, g in zip(names, row) if n in directions]
        for row in case(name).gradients
    ]
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize("name", SETTINGS)
def test_products_and_cosines(name):
    model, images, _, _ = case(name)
    directions = directions_for(model)
    found = alignments(model, images, directions, **SETTINGS[name].options)
    assert found.names == list(directions)
    truth, products = case(name).truth, true_products(name, directions)
    assert_exact(found.squared_norms, truth)
    lengths = torch.stack([v.norm() for v in directions.values()])
    # a product can be small beside the two lengths, and round like them
    norms = truth.sqrt()
    room = (1e-9 * norms + 1e-13 * norms.max(1, keepdim=True).values) * lengths
    assert ((found.products - products).abs() <= room).all()
    clear = truth > 1e-14 * truth.max(1, keepdim=True).values
    cosines = (products / (norms * lengths)).clamp(-1, 1)
    torch.testing.assert_close(found.cosines[clear], cosines[clear], rtol=0, atol=1e-9)
    assert (found.cosines.abs() <= 1).all()
    torch.testing.assert_close(found.outputs, model(images).detach())


@pytest.mark.parametrize("route", ["direct", "gram", "native", ALONE])
@pytest.mark.parametrize("name", ["conv-groups", "linear-folded-apart", "vision", "weight-norm"])
def test_products_do_not_depend_on_route_or_chunk(name, route):
    model, images, _, _ = case(name)
    directions = directions_for(model)
    found = alignments(model, images, directions, routes=route, chunk=2)
    torch.testing.assert_close(found.products, true_products(name, directions))
    if route == ALONE:
        assert set(found.routes.values()) == {ALONE}


@pytest.mark.parametrize("name", ["view", "transposed-view", "matmul", "bare", "vision"])
def test_directions_go_through_the_views_of_their_parameter(name):
    """Each element of a direction meets the element of the gradient at the same place."""
    model, images, _, _ = case(name)
    for column, (parameter, values) in enumerate(model.named_parameters()):
        for place in {0, values.numel() // 2 + 1, values.numel() - 1} & {*range(values.numel())}:
            direction = torch.zeros_like(values).detach()
            direction.view(-1)[place] = 1
            found = alignments(model, images[:2], {parameter: direction})
            elements = [row[column].flatten()[place] for row in case(name).gradients[:2]]
            torch.testing.assert_close(found.products[:, 0], torch.stack(elements))


def stacks_for(model: nn.Module, count: int) -> dict[str, Tensor]:
    every = [directions_for(model, seed) for seed in range(count)]
    return {name: torch.stack([one[name] for one in every]) for name in every[0]}


def assert_products_of(found, name: str, directions: dict[str, Tensor]) -> None:
    """Compare the products with every direction of a stack with those of autograd."""
    count = len(next(iter(directions.values())))
    assert found.products.shape == (len(found.outputs), len(found.names), count)
    lengths = torch.stack([v.reshape(len(v), -1).norm(dim=1) for v in directions.values()])
    norms = case(name).truth.sqrt()
    room = (1e-9 * norms + 1e-13 * norms.max(1, keepdim=True).values)[:, :, None] * lengths
    for k in range(count):
        truth = true_products(name, {n: v[k] for n, v in directions.items()})
        assert ((found.products[:, :, k] - truth).abs() <= room[:, :, k]).all()


@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize("name", SETTINGS)
def test_several_directions_at_once(name, count):
    model, images, _, _ = case(name)
    directions = stacks_for(model, count)
    found = alignments(model, images, directions, **SETTINGS[name].options)
    assert_exact(found.squared_norms, case(name).truth)
    assert_products_of(found, name, directions)
    one = alignments(
        model, images, {n: v[-1] for n, v in directions.items()}, **SETTINGS[name].options
    )
    torch.testing.assert_close(found.cosines[:, :, -1], one.cosines, rtol=0, atol=1e-6)
    assert found.names == one.names


@pytest.mark.parametrize("route", ["direct", "gram", "native", ALONE])
@pytest.mark.parametrize(
    "name", [n for n in SETTINGS if n.startswith(("conv", "linear", "embedding"))]
)
def test_several_directions_on_every_route(name, route):
    model, images, _, _ = case(name)
    directions = stacks_for(model, 3)
    options = SETTINGS[name].options
    found = alignments(model, images, directions, routes=route, chunk=2, **options)
    assert_products_of(found, name, directions)


def test_of_many_directions_the_gradient_itself_is_taken_sooner():
    """Products through a layer cost a pass each, those with a gradient at hand next to nothing."""
    rule = conv2d_rule()
    x, delta = torch.Size((1, 128, 8, 8)), torch.Size((1, 128, 8, 8))
    few, many = (
        {r: nanoseconds(w, r, "cpu") for r, w in rule.routes(x, delta, "cpu", k).items()}
        for k in (0, 100)
    )
    assert min(few, key=few.get) == "gram"
    assert min(many, key=many.get) != "gram"


def test_a_gradient_is_aligned_with_itself():
    model, images, _, gradients = case("vision")
    names = [n for n, _ in model.named_parameters()]
    directions = {n: -3 * g for n, g in zip(names, gradients[2])}
    found = alignments(model, images, directions)
    torch.testing.assert_close(found.cosines[2], -torch.ones(len(names), dtype=torch.float64))
    assert (found.cosines[0] > -0.999999).all()


def test_only_what_is_asked_for_in_the_order_of_the_model():
    model, images, _, _ = case("vision")
    directions = directions_for(model)
    wanted = {n: directions[n] for n in ("out.bias", "patches.weight", "position")}
    found = alignments(model, images, wanted)
    assert found.names == ["position", "patches.weight", "out.bias"]
    assert set(found.routes) == set(wanted)
    torch.testing.assert_close(found.products, true_products("vision", wanted))


def test_length_zero_gives_cosine_zero():
    model, images, _, _ = case("bare")
    directions = directions_for(model)
    directions["out.weight"].zero_()
    found = alignments(model, images, directions)
    for name in ("out.weight", "unused"):
        column = found.names.index(name)
        assert (found.products[:, column] == 0).all()
        assert (found.cosines[:, column] == 0).all()
    assert (found.squared_norms[:, found.names.index("out.weight")] > 0).all()


def test_autoencoder_with_a_function_of_images_and_outputs():
    """GradCon: mean gradients as directions, a reconstruction loss, any number format."""
    model, images, _, gradients = case("autoencoder")
    names = [n for n, _ in model.named_parameters()]
    means = {n: torch.stack(column).mean(0) for n, column in zip(names, zip(*gradients))}
    options = SETTINGS["autoencoder"].options
    exact = alignments(model, images, means, **options)
    torch.testing.assert_close(exact.products, true_products("autoencoder", means))
    single = alignments(model, images, means, precision="float32", **options)
    assert single.cosines.dtype == torch.float32
    torch.testing.assert_close(single.cosines.double(), exact.cosines, rtol=0, atol=1e-5)
    half = alignments(model, images, means, precision="float16", **options)
    torch.testing.assert_close(half.cosines.double(), exact.cosines, rtol=0, atol=3e-2)


def test_float16_with_the_fallback():
    model, images, _, _ = case("bilinear")
    directions = directions_for(model)
    exact = alignments(model, images, directions)
    half = alignments(model, images, directions, precision="float16")
    assert ALONE in half.routes.values()
    for found, true in ((half.products, exact.products), (half.squared_norms, exact.squared_norms)):
        room = 0.02 * true.abs().max(0).values
        assert ((found.double() - true).abs() <= room).all()


def test_memory_and_state_are_left_alone():
    model, images, _, _ = case("conv")
    directions = directions_for(model)
    kept = {n: v.clone() for n, v in directions.items()}
    with torch.inference_mode():
        found = alignments(model, images + 0, directions)
    assert not found.products.requires_grad
    assert all(torch.equal(v, kept[n]) for n, v in directions.items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
