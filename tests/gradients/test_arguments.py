"""What callers may get wrong at the Python door: one sentence each, or the right numbers."""

import warnings

import numpy as np
import pytest
import torch
from _gradient_truth import assert_exact, loop
from torch import Tensor, nn
from torch.nn import functional as F

from gradbench.errors import GradbenchError
from gradbench.gradients import (
    KHot,
    RandomKHot,
    alignments,
    explain,
    last_layer,
    outputs,
    squared_norms,
)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Linear(64, 5)
    ).eval()


def images(count: int = 3) -> Tensor:
    torch.manual_seed(1)
    return torch.rand(count, 3, 6, 6)


DOORS = {
    "squared_norms": squared_norms,
    "alignments": lambda net, x: alignments(net, x, {"4.bias": torch.ones(5)}),
    "explain": explain,
    "last_layer": last_layer,
    "outputs": outputs,
}


def broken(x: Tensor) -> Tensor:
    x[1, 0, 0, 0] = torch.nan
    return x


IMAGES = {
    "uint8": (
        lambda x: (x * 255).byte(),
        r"uint8 of shape \(3, 6, 6\).*images\.to\(torch\.float32",
    ),
    "complex": (lambda x: x.to(torch.cfloat), "complex64 of shape"),
    "float64": (lambda x: x.double(), r"float64 of shape.*images\.to\(torch\.float32\)"),
    "float16": (lambda x: x.half(), "float16 of shape.*parameters are float32"),
    "meta": (lambda x: x.to("meta"), "no ordinary tensor"),
    "sparse": (lambda x: x.to_sparse(), "sparse_coo"),
    "quantised": (
        lambda x: torch.quantize_per_tensor(x, 0.1, 0, torch.quint8),
        "no ordinary tensor",
    ),
    "nested": (lambda x: torch.nested.nested_tensor(list(x)), "no ordinary tensor"),
    "numpy": (lambda x: x.numpy(), r"ndarray, not a torch\.Tensor: torch\.as_tensor"),
    "nothing": (lambda x: None, "images are a NoneType"),
    "no images": (lambda x: x[:0], "no images were given"),
    "no pixels": (lambda x: x[..., :0], "no images were given"),
    "a number": (lambda x: x[0, 0, 0, 0], "no images were given"),
    "one image": (lambda x: x[0], r"shape \(6, 6\)"),
    "grey": (lambda x: x[:, :1], r"shape \(1, 6, 6\): .*3 channels"),
    "larger": (lambda x: F.pad(x, (2, 2, 2, 2)), r"shape \(3, 10, 10\)"),
    "not a number": (broken, "not all finite: the images hold NaN or infinity"),
    "infinite": (lambda x: x / 0, "not all finite: the images hold"),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("door", DOORS)
def test_images_that_the_network_does_not_take(name, door):
    make, message = IMAGES[name]
    with pytest.raises(GradbenchError, match=message) as fault:
        DOORS[door](network(), make(images()))
    assert "\n" not in str(fault.value)


WELCOME = {
    "requiring gradients": lambda x: x.requires_grad_(),
    "with a graph": lambda x: x.requires_grad_() * 1,
    "of inference mode": lambda x: x,
    "parameters": nn.Parameter,
    "strided": lambda x: x.expand(3, 3, 6, 6).transpose(2, 3).contiguous().transpose(2, 3),
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
}


class Named(Tensor):
    """A subclass without meaning of its own."""


@pytest.mark.parametrize("name", [*WELCOME, "subclass"])
@pytest.mark.parametrize("door", DOORS)
def test_images_of_any_origin(name, door, capsys):
    net, x = network(), images()
    expected = DOORS[door](net, x)
    if name == "of inference mode":
        with torch.inference_mode():
            x = x.clone()
    x = x.as_subclass(Named) if name == "subclass" else WELCOME.get(name, lambda x: x)(x)
    found = DOORS[door](net, x)
    kinds = {"squared_norms": "values", "alignments": "products", "last_layer": "features"}
    if door == "explain":
        assert found == expected
        return
    values, truth = (getattr(f, kinds[door]) if door in kinds else f for f in (found, expected))
    assert type(values) is Tensor
    assert not values.requires_grad
    torch.testing.assert_close(values, truth)


def in_inference_mode() -> nn.Module:
    with torch.inference_mode():
        return network()


def meta() -> nn.Module:
    with torch.device("meta"):
        return network()


def sparse() -> nn.Module:
    net = network()
    net[4].weight = nn.Parameter(net[4].weight.detach().to_sparse())
    return net


def spoilt(name: str) -> nn.Module:
    net = network()
    net.get_parameter(name).data[0] = torch.nan
    return net


MODELS = {
    "function": (lambda: lambda x: x, "the model is a function, not a torch.nn.Module"),
    "nothing": (lambda: None, "the model is a NoneType"),
    "weights": (lambda: network().state_dict(), "the model is a OrderedDict"),
    "class": (lambda: nn.Linear, "the model is a class"),
    "lazy": (lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(5)), r"1\.weight \(lazy\)"),
    "meta": (meta, r"0\.weight \(strided, meta\)"),
    "sparse": (sparse, r"4\.weight \(sparse_coo, cpu\)"),
    "half": (lambda: network().half(), "parameters are float16: pass images"),
    "bfloat16": (lambda: network().bfloat16(), "parameters are bfloat16"),
    "double": (lambda: network().double(), "parameters are float64"),
    "training": (lambda: network().train(), "'1' is in training mode"),
    "not a number": (lambda: spoilt("4.bias"), r"parameter 4\.bias holds NaN"),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("door", DOORS)
def test_models_that_have_no_gradients_here(name, door):
    make, message = MODELS[name]
    with pytest.raises(GradbenchError, match=message) as fault:
        DOORS[door](make(), images())
    assert "\n" not in str(fault.value)


@pytest.mark.parametrize("door", [d for d in DOORS if d not in ("outputs", "last_layer")])
def test_a_model_without_parameters(door):
    with pytest.raises(GradbenchError, match=r"no param|no parameter named"):
        DOORS[door](nn.Flatten(), images())


def test_a_model_of_inference_mode():
    net, x = in_inference_mode(), images()
    expected = squared_norms(network(), x)
    for precision in (None, "float64"):
        found = squared_norms(net, x, precision=precision)
        torch.testing.assert_close(found.values.float(), expected.values, rtol=1e-4, atol=0)
    with torch.inference_mode():
        half = squared_norms(network(), x, precision="float64")
    torch.testing.assert_close(half.values.float(), expected.values, rtol=1e-4, atol=0)


def test_half_precision_models_on_the_cpu():
    net, x = network(), images()
    expected = squared_norms(net, x).values
    for dtype in (torch.half, torch.bfloat16):
        low = network().to(dtype)
        direct = squared_norms(low, x.to(dtype)).values
        single = squared_norms(low, x, precision="float32").values
        assert direct.dtype == single.dtype == torch.float32
        for found in (direct, single):
            assert ((found - expected).abs() <= 0.1 * expected.max(1, keepdim=True).values).all()
        assert last_layer(low, x.to(dtype)).features.dtype == torch.float32


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda n: torch.compile(n, backend="eager")])
def test_wrapped_models_are_the_network_inside(wrap):
    net, x = network().double(), images().double()
    wrapped = wrap(net)
    truth = loop(net, x)
    found = squared_norms(wrapped, x)
    assert found.names == [name for name, _ in net.named_parameters()]
    assert_exact(found.values, truth)
    direction = {"4.bias": torch.ones(5)}
    torch.testing.assert_close(
        alignments(wrapped, x, direction).products, alignments(net, x, direction).products
    )
    assert last_layer(wrapped, x).layer == "4"
    torch.testing.assert_close(outputs(wrapped, x), net(x))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scripted_models():
    net, x = network().double(), images().double()
    scripted = torch.jit.script(net)
    assert_exact(squared_norms(scripted, x).values, loop(net, x))
    torch.testing.assert_close(outputs(scripted, x), net(x))


@pytest.mark.parametrize("part", [None, 0, 4])
def test_compiled_modules_say_nothing(part, caplog):
    """`Module.compile()`, of the network or of a layer, with PyTorch's own compiler."""
    net, x = network().double(), images().double()
    truth = loop(net, x)
    (net if part is None else net[part]).compile()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = squared_norms(net, x)
        torch.testing.assert_close(outputs(net, x), found.outputs)
        assert last_layer(net, x).layer == "4"
    assert "one image at a time" not in found.routes.values()
    assert_exact(found.values, truth)
    assert not caplog.records


PARAMETERS = {
    "misspelt": (["4.wieght"], r"did you mean 4\.weight"),
    "of a wrapper": (["module.4.weight"], r"did you mean 4\.weight"),
    "beginning": ("4", "no parameter named '4'"),
    "nothing": ([], "no parameter was selected"),
    "number": (4, "parameters is a int"),
    "numbers": ([4], "parameters is a list of something else than names"),
    "tensors": (lambda net: list(net.parameters()), "parameters is a list of something"),
    "module": (lambda net: net[4], "parameters is a Linear of something"),
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_wrong_parameters(name):
    wanted, message = PARAMETERS[name]
    net = network()
    wanted = wanted(net) if callable(wanted) else wanted
    with pytest.raises(GradbenchError, match=message):
        squared_norms(net, images(), parameters=wanted)


OPTIONS = {
    "route": ({"routes": "grams"}, "did you mean gram"),
    "precision": ({"precision": "float3"}, "did you mean float32"),
    "precision as a type": ({"precision": torch.float32}, "no precision named"),
    "chunk": ({"chunk": 1.5}, "whole number"),
    "loss": ({"loss": "bcee"}, "did you mean bce"),
    "no loss": ({"loss": None}, "no loss named 'None'"),
    "loss module": ({"loss": nn.CrossEntropyLoss()}, "CrossEntropyLoss compares with a target"),
    "loss class": ({"loss": nn.MSELoss}, "MSELoss compares with a target"),
    "loss function of torch": ({"loss": F.cross_entropy}, "cross_entropy compares with a target"),
    "loss of three": ({"loss": lambda a, b, c: a}, "asks for 3 arguments"),
    "loss without a gradient": ({"loss": lambda z: z.argmax(1).double()}, "does not depend"),
    "complex loss": ({"loss": lambda z: z.sum(1) * 1j}, "complex"),
    "label": ({"label": "oness"}, "did you mean ones"),
    "label as a number": ({"label": 1}, "no label named '1'"),
    "label as an array": ({"label": np.ones(5), "loss": "ce_uniform"}, "takes no label"),
    "label of another length": ({"label": "short"}, r"label Short.*\(5,\), but gave \(4,\)"),
    "label as numbers": ({"label": "numbers"}, "label Numbers.*gave list"),
    "reduction": ({"reduction": "max"}, "valid choices are mean, sum"),
    "loss and label": ({"loss": lambda z: z.sum(1), "label": "zeros"}, "put them inside"),
    "constant loss": ({"loss": "ce_sum_one_hot", "label": "zeros"}, "constant"),
    "loss of the batch": ({"loss": lambda z: z.sum()}, "one value per image"),
    "mixing loss": ({"loss": lambda z: (z - z.mean(0)).square().sum(1)}, "mixes the images"),
    "class beyond": ({"label": KHot((0, 9))}, "classes 0 to 4"),
    "too few ones": ({"label": RandomKHot(1)}, "choose 2 to 5"),
    "function of names": ({"parameters": lambda name: False}, "no parameter was selected"),
}


class Short:
    def vector(self, outputs: int) -> Tensor:
        return torch.ones(outputs - 1)


class Numbers:
    def vector(self, outputs: int) -> list:
        return [1.0] * outputs


@pytest.mark.parametrize("name", OPTIONS)
def test_wrong_options(name):
    options, message = OPTIONS[name]
    own = {"short": Short(), "numbers": Numbers()}
    label = options.get("label")
    if isinstance(label, str) and label in own:
        options = {"label": own[label]}
    with pytest.raises(GradbenchError, match=message):
        squared_norms(network(), images(), **options)


DIRECTIONS = {
    "list": ([torch.ones(5)], "directions is a list"),
    "tensor": (torch.ones(5), "directions is a Tensor"),
    "nothing": (None, "directions is a NoneType"),
    "empty": ({}, "directions is empty"),
    "misspelt": ({"4.bais": torch.ones(5)}, r"did you mean 4\.bias"),
    "of a number": ({4: torch.ones(5)}, "no parameter named '4'"),
    "array": ({"4.bias": np.ones(5)}, r"4\.bias is a ndarray"),
    "numbers": ({"4.bias": [1.0] * 5}, r"4\.bias is a list"),
    "shape": ({"4.bias": torch.ones(1, 4)}, r"shape \(1, 4\).*\(5,\)"),
    "stack of none": ({"4.bias": torch.ones(0, 5)}, r"shape \(0, 5\).*a stack of some"),
    "stack and one": (
        {"4.bias": torch.ones(2, 5), "4.weight": torch.ones_like(network()[4].weight)},
        "of different numbers",
    ),
    "complex": ({"4.bias": torch.ones(5, dtype=torch.cfloat)}, "not real and finite"),
    "meta": ({"4.bias": torch.ones(5, device="meta")}, "no ordinary"),
    "sparse": ({"4.bias": torch.ones(5).to_sparse()}, "sparse_coo"),
    "not a number": ({"4.bias": torch.full((5,), torch.nan)}, "not real and finite"),
}


@pytest.mark.parametrize("name", DIRECTIONS)
def test_wrong_directions(name):
    directions, message = DIRECTIONS[name]
    with pytest.raises(GradbenchError, match=message):
        alignments(network(), images(), directions)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.half, torch.double])
def test_directions_of_any_number_format(dtype):
    net, x = network(), images()
    ones = {n: torch.ones_like(p) for n, p in net.named_parameters()}
    same = {n: v.to(dtype).requires_grad_(dtype.is_floating_point) for n, v in ones.items()}
    expected = alignments(net, x, ones)
    for route in (None, "one image at a time"):
        found = alignments(net, x, same, routes=route)
        assert found.products.dtype == torch.float32
        assert not found.products.requires_grad
        torch.testing.assert_close(found.products, expected.products, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(found.cosines, expected.cosines, rtol=1e-4, atol=1e-6)


def test_wrong_layers():
    for layer in (4, ["4"], network()[4], "5"):
        with pytest.raises(GradbenchError, match=r"no layer named|layer is a \w+: give the name"):
            last_layer(network(), images(), layer=layer)


def test_faults_of_the_callers_hooks_stay_theirs():
    net = network()

    def fail(*_):
        raise ValueError("halfway")

    net[0].register_forward_hook(fail)
    for door in ("squared_norms", "last_layer"):
        with pytest.raises(ValueError, match="halfway"):
            DOORS[door](net, images())
