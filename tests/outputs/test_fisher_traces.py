"""Fisher traces of every tensor against the sum over classes, one image at a time."""

import pytest
import torch
from _dummies import TinyNet, images, network
from torch import nn

from gradbench.backbones.backbone import Backbone
from gradbench.backbones.densenet import DenseNet
from gradbench.backbones.resnet import ResNet
from gradbench.backbones.resnet_cifar import CifarResNet
from gradbench.errors import GradbenchError
from gradbench.methods.base import PassCount
from gradbench.methods.fisher_trace import FisherTrace
from gradbench.methods.gradient_oneclass import GradientOneClass
from gradbench.outputs.base import BatchContext
from gradbench.outputs.catalogue import OutputCatalogue, built_in
from gradbench.outputs.fisher_traces import FisherTraces, chain_weights
from gradbench.outputs.read import read_outputs


def pixels(count=4, shape=(1, 8, 8)):
    draw = torch.Generator().manual_seed(1)
    return torch.rand(count, *shape, generator=draw, dtype=torch.float64)


def backbone(net, classes=4, shape=(3, 8, 8)):
    channels = [0.4] * shape[0]
    return Backbone(net, channels, channels, map(str, range(classes)), shape).eval().double()


def expected(f, x):
    """Return sum_y p_y |d log p_y / d tensor|^2 by autograd, image by image, class by class."""
    tensors = list(f.network.parameters())
    rows = []
    for image in x:
        logs = f(image[None]).log_softmax(1)[0]
        row = 0
        for log in logs:
            gradients = torch.autograd.grad(log, tensors, retain_graph=True)
            row = row + log.exp().detach() * torch.stack([g.square().sum() for g in gradients])
        rows.append(row)
    return torch.stack(rows)


NETWORKS = {
    "small_cnn": lambda: network().double(),
    "resnet18": lambda: backbone(ResNet(18, 4, 3, width=4)),
    "resnet20": lambda: backbone(CifarResNet(20, 4, 3, width=4)),
    "densenet": lambda: backbone(DenseNet(10, 4, 3, growth=4)),
    "two classes": lambda: backbone(TinyNet(2), 2, (1, 8, 8)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_they_are_the_expected_squared_gradients_of_one_image_by_autograd(name):
    torch.manual_seed(0)
    f = NETWORKS[name]()
    x = pixels(shape=f.shape)
    context = BatchContext(f, x)
    found = FisherTraces().read(context)
    assert found.dtype == torch.float64
    assert found.shape == (4, len(context.parameter_names))
    torch.testing.assert_close(found, expected(f, x), rtol=1e-9, atol=1e-14)


def test_the_order_of_the_classes_changes_nothing_and_sure_images_keep_their_digits():
    """With a last layer 300 times as large the others have no more than 1e-12."""
    f = network().double()
    x = pixels()
    with torch.no_grad():
        f.network.fc.weight *= 300
        logits = f(x)
    exact = FisherTraces().read(BatchContext(f, x))
    assert (1 - logits.softmax(1).amax(1)).max() < 1e-12
    assert exact.sum(1).min() > 1e-100
    rounded = FisherTraces().read(BatchContext(f.float(), x.float()))
    with torch.no_grad():
        for parameter in (f.network.fc.weight, f.network.fc.bias):
            parameter.copy_(parameter[[2, 0, 1]])
    turned = FisherTraces().read(BatchContext(f.double(), x))
    torch.testing.assert_close(turned, exact, rtol=1e-5, atol=0)
    torch.testing.assert_close(rounded, exact, rtol=1e-3, atol=0)


def test_weights_of_the_chain_of_choices():
    """p = 1/2, 1/3, 1/6: 1/2 * 1/2, and 1/3 * 1/6 / (1/2)."""
    found = chain_weights(torch.tensor([[3.0, 2.0, 1.0]]).log())
    torch.testing.assert_close(found, torch.tensor([[1 / 4, 1 / 9]]).double(), rtol=1e-6, atol=0)


def test_one_class_has_none():
    found = FisherTraces().read(BatchContext(backbone(TinyNet(1), 1, (1, 8, 8)), pixels()))
    assert torch.equal(found, torch.zeros(4, 5, dtype=torch.float64))


def test_more_classes_than_allowed_are_refused():
    context = BatchContext(network(), pixels().float())
    assert FisherTraces(3).read(context).shape == (4, len(context.parameter_names))
    with pytest.raises(GradbenchError, match=r"of 3 classes take 2 passes.*set most_classes"):
        FisherTraces(2).read(context)


def test_a_file_of_ones_own_allows_more_classes(tmp_path):
    assert built_in().find("fisher_traces").most_classes == 200
    (tmp_path / "output").mkdir()
    text = "_target_: gradbench.outputs.fisher_traces.FisherTraces\nmost_classes: 1000\n"
    (tmp_path / "output" / "fisher_traces.yaml").write_text(text)
    assert OutputCatalogue([tmp_path]).find("fisher_traces").most_classes == 1000


def test_what_reads_them_takes_a_pass_for_every_class_but_one():
    count = FisherTrace("all").pass_count
    assert count == PassCount(1, 0, by_class=True)
    assert str(count) == "1 forward, 0 backward, one more of both for every class but one"
    assert GradientOneClass(source="fisher_traces").pass_count == count
    assert not FisherTrace().pass_count.by_class


def test_of_the_last_layer_they_are_the_closed_form():
    f = network()
    x = torch.from_numpy(images(20).images).float() / 255
    found = read_outputs(f, x, ["fisher_traces", "logits", "features"])
    names = [name for name, _ in f.network.named_parameters()]
    last = found["fisher_traces"][:, [names.index("fc.weight"), names.index("fc.bias")]]
    for column, tensor in zip(last.double().T, ("weight", "bias")):
        torch.testing.assert_close(column, FisherTrace(tensor).score(found), rtol=1e-4, atol=0)
    total = FisherTrace("all").score(found)
    torch.testing.assert_close(total, found["fisher_traces"].double().sum(1))


def test_parameters_without_part_in_the_logits_have_none():
    class Idle(TinyNet):
        def __init__(self):
            super().__init__()
            self.idle = nn.Linear(2, 2)

    found = FisherTraces().read(BatchContext(backbone(Idle(), 3, (1, 8, 8)), pixels()))
    assert (found[:, -2:] == 0).all()
    assert (found[:, :-2] > 0).all()
