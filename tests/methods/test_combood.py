"""CombOOD against its formula with scikit-learn's transforms, and known answers; its output."""

import numpy as np
import pytest
import torch
from _dummies import TinyNet, images
from scipy.spatial.distance import mahalanobis
from scipy.stats import yeojohnson
from sklearn.preprocessing import PowerTransformer, StandardScaler
from torch import nn
from torch.nn import functional

from gradbench.backbones.backbone import Backbone
from gradbench.backbones.resnet import ResNet
from gradbench.errors import GradbenchError
from gradbench.methods.base import PassCount, Samples
from gradbench.methods.combood import CombOOD, yeo_johnson
from gradbench.outputs.read import read_outputs

NOTHING = Samples.normal({})


@pytest.fixture(scope="module")
def given():
    """Return (bank, outputs) of 12 features, 4 classes and 3 extremes, of which one is constant."""
    draw = torch.Generator().manual_seed(0)

    def outputs(count):
        extremes = torch.randn(count, 3, generator=draw).exp()
        extremes[:, 1] = 2
        return {
            "features": torch.rand(count, 12, generator=draw),
            "logits": 3 * torch.randn(count, 4, generator=draw),
            "extremes": extremes,
        }

    return outputs(80), outputs(9)


@pytest.mark.parametrize("k", [1, 50])
def test_combood_is_its_formula(given, k):
    bank, outputs = given

    def arrays(part):
        features, logits, extremes = (
            part[name].double().numpy() for name in ("features", "logits", "extremes")
        )
        ends = np.column_stack([extremes, logits.max(1), -logits.min(1)])
        return features / np.linalg.norm(features, axis=1)[:, None], ends

    (near, ends), (features, found) = arrays(bank), arrays(outputs)
    before, after = StandardScaler(), PowerTransformer()
    normal = after.fit_transform(before.fit_transform(ends))
    inverse = np.linalg.inv(np.cov(normal, rowvar=False) + np.eye(5))
    expected = []
    for row, one in zip(features, after.transform(before.transform(found))):
        nearest = np.sort(((near - row) ** 2).sum(1))[k - 1]
        far = mahalanobis(one, np.zeros(5), inverse) ** 2
        expected.append(far + np.sqrt(12) * np.log(nearest))
    scores = CombOOD(k).fit(bank, NOTHING, NOTHING).score(outputs)
    np.testing.assert_allclose(scores.numpy(), expected, rtol=1e-5)


def test_the_transform_is_that_of_yeo_and_johnson():
    values = torch.linspace(-3, 4, 29).double()
    for power in (-1.5, 0.0, 0.7, 1.0, 2.0, 5.0):
        found = yeo_johnson(values[:, None], torch.tensor([power]).double())[:, 0]
        np.testing.assert_allclose(found.numpy(), yeojohnson(values.numpy(), power), atol=1e-12)


def test_an_image_of_the_bank_and_one_beyond_all_bounds_have_finite_scores(given):
    bank, _ = given
    outputs = {name: values[:2].clone() for name, values in bank.items()}
    outputs["extremes"][1] = 1e30
    scores = CombOOD(1).fit(bank, NOTHING, NOTHING).score(outputs)
    assert scores.isfinite().all()
    assert scores[0] < -100 < 1e3 < scores[1]


def test_the_extremes_take_a_pass_of_their_own():
    assert CombOOD().pass_count == PassCount(2, 0)


def test_settings_out_of_range_are_refused(given):
    with pytest.raises(GradbenchError, match="combood k=0: a whole number, at least 1"):
        CombOOD(0)
    with pytest.raises(GradbenchError, match="combood k=81: choose a whole number from 1 to 80"):
        CombOOD(81).fit(given[0], NOTHING, NOTHING)


# the output


def backbone(net, shape=(1, 8, 8)):
    return Backbone(net, [0.4] * shape[0], [0.3] * shape[0], "abc", shape).eval()


def pixels(count=5):
    return torch.from_numpy(images(count).images).float() / 255


def ends(values):
    return values.flatten(1).amax(1), -values.flatten(1).amin(1)


class Functions(TinyNet):
    """Calls one function of each kind, one of them in place."""

    def forward(self, x):
        y = self.bn(self.conv(x))
        y = functional.gelu(functional.relu6(functional.leaky_relu(y - 1)))
        return self.fc((y - 0.5).relu_().mean((2, 3)))


class Layers(Functions):
    """The same with layers."""

    def __init__(self):
        super().__init__()
        self.parts = nn.ModuleList([nn.LeakyReLU(), nn.ReLU6(True), nn.GELU(), nn.ReLU(True)])

    def forward(self, x):
        y = self.bn(self.conv(x)) - 1
        for part in self.parts[:3]:
            y = part(y)
        return self.fc(self.parts[3](y - 0.5).mean((2, 3)))


def test_extremes_are_those_of_the_inputs_of_layers_and_functions():
    torch.manual_seed(0)
    net, other = Functions(), Layers()
    other.load_state_dict(net.state_dict(), strict=False)
    found = [
        read_outputs(backbone(one), pixels(), ["extremes"])["extremes"] for one in (net, other)
    ]
    f = backbone(net)
    with torch.no_grad():
        first = net.bn(net.conv((pixels() - 0.4) / 0.3)) - 1
        second = functional.leaky_relu(first)
        third = second.clamp(0, 6)
        inputs = first, second, third, functional.gelu(third) - 0.5
    expected = torch.stack([end for values in inputs for end in ends(values)], dim=1)
    torch.testing.assert_close(found[0], expected)
    assert torch.equal(*found)
    torch.testing.assert_close(f(pixels()), read_outputs(f, pixels(), ["logits"])["logits"])


def test_a_resnet18_has_those_of_17_functions_of_the_image_alone():
    torch.manual_seed(0)
    f = backbone(ResNet(18, 3, 3, width=4), (3, 16, 16))
    x = torch.rand(4, 3, 16, 16)
    found = read_outputs(f, x, ["extremes"])["extremes"]
    assert found.shape == (4, 34)
    for i in range(4):
        alone = read_outputs(f, x[i : i + 1], ["extremes"])["extremes"]
        torch.testing.assert_close(alone[0], found[i], rtol=1e-4, atol=1e-5)


class Tanh(TinyNet):
    def forward(self, x):
        return self.fc(torch.tanh(self.conv(x)).mean((2, 3)))


class Turned(TinyNet):
    def forward(self, x):
        return self.fc(self.conv(x).mean((2, 3)).T.relu().T)


@pytest.mark.parametrize(
    ("net", "told"),
    [
        (Tanh(), "Tanh calls none of relu, .*: leave out the detectors that read extremes"),
        (Turned(), "Turned calls an activation function on something else"),
    ],
)
def test_networks_without_such_functions_are_refused(net, told):
    with pytest.raises(GradbenchError, match=told):
        read_outputs(backbone(net), pixels(), ["extremes"])
