"""Outputs of f: equal to computing them directly, kept by shard, computed only where missing."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from _dummies import CLASSES, TinyNet, grey, images, network
from torch import nn
from torch.nn import functional

from gradbench.backbones.backbone import Backbone, digest
from gradbench.challenges.corruptions.noise import GaussianNoise
from gradbench.challenges.produce import ChallengeSetup, produce
from gradbench.errors import GradbenchError
from gradbench.outputs import extract as module
from gradbench.outputs.base import BatchContext
from gradbench.outputs.catalogue import built_in
from gradbench.outputs.extract import extract
from gradbench.outputs.read import read_outputs
from gradbench.store import Store

NORMS = "squared_norms/ones/bce"
LAYERS = [f"layer_means/stage{i}" for i in (1, 2, 3)]
ALL = ["logits", "features", *LAYERS, NORMS, "squared_norms/zeros/mse"]
FURTHER = ("extremes", "fisher_traces", "gradient_density")


@pytest.fixture(scope="module")
def f():
    return network()


@pytest.fixture
def passes(monkeypatch):
    """List what every computed pass over a shard was asked for."""
    asked = []
    compute = module.compute_outputs

    def counted(backbone, images, rows, outputs, advance):
        asked.append((rows.start, sorted(output.name for output in outputs)))
        return compute(backbone, images, rows, outputs, advance)

    monkeypatch.setattr(module, "compute_outputs", counted)
    return asked


def pixels_of(data) -> torch.Tensor:
    return torch.from_numpy(data.images[slice(None)]).float() / 255


def equal(first, second) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


# numbers


def test_logits_are_those_of_the_network(store, f):
    data = images(130)
    found = extract(f, digest(f), data, ["logits"], store)["logits"]
    assert found.shape == (130, 3)
    with torch.inference_mode():
        torch.testing.assert_close(found, f(pixels_of(data)), rtol=1e-5, atol=1e-5)


def test_squared_norms_are_those_of_a_loop_in_double_precision(store):
    torch.manual_seed(1)
    net = TinyNet()
    nn.init.uniform_(net.bn.weight, 0.5, 1.5)
    f = Backbone(net, [0.4], [0.3], CLASSES, (1, 8, 8)).eval()
    data = images(23)
    found = extract(f, digest(f), data, ["squared_norms/ones/bce"], store)
    double = Backbone(TinyNet(), [0.4], [0.3], CLASSES, (1, 8, 8)).eval().double()
    double.load_state_dict(f.state_dict())
    for row, image in zip(found["squared_norms/ones/bce"], pixels_of(data).double()):
        logits = double(image[None])
        loss = functional.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))
        grads = torch.autograd.grad(loss, list(double.network.parameters()))
        expected = torch.stack([g.square().sum() for g in grads])
        torch.testing.assert_close(row.double(), expected, rtol=2e-4, atol=1e-10)


def test_golden_outputs():
    # if this fails, raise the version of the output
    versions = {"logits": 2, "features": 1, "layer_means": 3, "squared_norms": 2}
    versions |= dict.fromkeys(FURTHER, 1) | {"neuron_states": 1}
    assert {name: built_in().versions()[name] for name in versions} == versions
    found = read_outputs(network(), pixels_of(images(2)), [*ALL, "neuron_states", *FURTHER])
    assert found["logits"][1].tolist() == pytest.approx([0.0895534, 0.37148, -0.333641], rel=1e-4)
    means = [0.0408191, 0.255273, 0.14522, 0.526194]
    assert found[LAYERS[0]][1, :4].tolist() == pytest.approx(means, rel=1e-4)
    features = [0.563085, 0.0386605, 0.00366247]
    assert found["features"][1, :3].tolist() == pytest.approx(features, rel=1e-4)
    states = [0.0110931, -0.0017876, -7.86394e-05, 0.00139521]
    assert found["neuron_states/stage3"][1, :4].tolist() == pytest.approx(states, rel=1e-4)
    extremes = [2.16219, 1.99956, 1.49492, 1.01199]
    assert found["extremes"][1, :4].tolist() == pytest.approx(extremes, rel=1e-4)
    traces = [0.00644323, 0.000631417, 0.000830679, 0.421237, 0.64134]
    columns = found["fisher_traces"][1, [0, 1, 2, -2, -1]]
    assert columns.tolist() == pytest.approx(traces, rel=1e-4)
    density = [0.0328631, 0.0851004, 0.212054]
    assert found["gradient_density"][1].tolist() == pytest.approx(density, rel=1e-4)
    norms = [0.000291505, 1.94776e-05, 2.82971e-05, 0.0535821, 0.0815796]
    assert found[NORMS][1, [0, 1, 2, -2, -1]].tolist() == pytest.approx(norms, rel=1e-4)


def test_the_columns_are_the_parameter_tensors(f):
    names = BatchContext(f, torch.rand(2, 1, 8, 8)).parameter_names
    assert names[0] == "conv1.weight"
    assert names[-1] == "fc.bias"
    assert read_outputs(f, torch.rand(2, 1, 8, 8), [NORMS])[NORMS].shape == (2, len(names))


# sharing and keeping


def test_outputs_do_not_depend_on_what_else_is_read(f):
    x = torch.rand(50, 1, 8, 8)
    together = read_outputs(f, x, ALL)
    assert sorted(together) == sorted(ALL)
    for name in ALL:
        assert torch.equal(read_outputs(f, x, [name])[name], together[name]), name


def test_all_outputs_share_one_pass_and_are_found_again(store, f, passes):
    data = images(1020)
    first = extract(f, "w", data, ALL, store)
    assert passes == [(0, sorted(ALL)), (1000, sorted(ALL))]
    assert len(store.made) == 2 * len(ALL)
    again = Store(store.root)
    assert equal(extract(f, "w", data, ALL, again), first)
    assert len(passes) == 2
    assert again.made == []


def test_one_output_more_computes_that_alone(store, f, passes):
    data = images(40)
    extract(f, "w", data, ["logits"], store)
    extract(f, "w", data, ["logits", NORMS], store)
    assert passes == [(0, ["logits"]), (0, [NORMS])]


def test_a_pass_keeps_what_others_will_ask_for(store, f, passes):
    data = images(40)
    found = extract(f, "w", data, ["logits"], store, also=["logits", NORMS])
    assert list(found) == ["logits"]
    extract(f, "w", data, [NORMS], store)
    assert passes == [(0, ["logits", NORMS])]
    extract(f, "w", data, ["logits"], store, also=["features"])  # nothing is missing: no pass
    assert len(passes) == 1


def test_names_may_stand_twice(store, f, passes):
    found = extract(f, "w", images(20), ["logits", "logits"], store)
    assert list(found) == ["logits"]
    assert passes == [(0, ["logits"])]


@pytest.mark.parametrize("damage", ["truncated", "altered", "missing"])
def test_a_damaged_shard_is_made_anew_alone(store, f, passes, damage):
    data = images(1040)
    first = extract(f, "w", data, ALL, store)
    key = module.shard_key(NORMS, "w", data.digests[1])
    path = store.get(key).path("shard.safetensors")
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        path.write_bytes(content[:-5])
    elif damage == "altered":
        content[-3] ^= 1
        path.write_bytes(content)
    else:
        path.unlink()
    again = Store(store.root)
    assert equal(extract(f, "w", data, ALL, again), first)
    assert passes[2:] == [(1000, [NORMS])]
    assert again.made == [key]


def test_keys_are_of_content(store, f, passes):
    extract(f, "w", images(20), ["logits"], store)
    extract(f, "w", images(20, name="elsewhere"), ["logits"], store)
    assert len(passes) == 1
    extract(f, "w", images(20, seed=1), ["logits"], store)
    extract(f, "v", images(20), ["logits"], store)
    assert len(passes) == 3


def test_outputs_of_made_images_are_those_of_their_pixels(store, f):
    source = ChallengeSetup(GaussianNoise([0.1, 0.2]), "noise", 0.2)
    made, _ = produce(source, images(30), store)
    plain = replace(made, images=made.images[slice(None)])
    first = extract(f, "w", made, ["logits", NORMS], store)
    assert equal(extract(f, "w", plain, ["logits", NORMS], Store(store.root / "other")), first)


def test_images_off_the_grid_are_read_as_they_are(store, f):
    source = ChallengeSetup(GaussianNoise([0.02]), "noise", 0.02, quantise=False)
    made, _ = produce(source, images(30), store)
    pixels = torch.from_numpy(made.images[slice(None)])
    found = extract(f, "w", made, ["logits"], store)["logits"]
    with torch.inference_mode():
        torch.testing.assert_close(found, f(pixels), rtol=1e-5, atol=1e-5)
        assert not torch.allclose(found, f((pixels * 255).round() / 255), rtol=1e-6, atol=1e-6)


# refusals


def test_outputs_that_are_not_finite_are_refused_and_not_kept(store):
    net = network()
    with torch.no_grad():
        net.network.fc.weight.fill_(3e38)
    for names in (["logits"], ["logits", NORMS]):
        with pytest.raises(GradbenchError, match=r"not (all )?finite"):
            extract(net, "w", images(20), names, store)
    assert list(store.products()) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("logit", "no output named 'logit': did you mean logits"),
        ("squared_norms", "is misnamed: write squared_norms/<label>/<loss>"),
        ("squared_norms/ones", "is misnamed"),
        ("logits/ones", "is misnamed"),
        ("squared_norms/onez/bce", "no label named 'onez': did you mean ones"),
        ("squared_norms/ones/bec", "no loss named 'bec'"),
    ],
)
def test_a_misnamed_output_is_refused_before_any_pass(store, f, passes, name, text):
    with pytest.raises(GradbenchError, match=text):
        extract(f, "w", images(5), ["logits", name], store)
    assert passes == []


def test_equal_images_have_equal_outputs_anywhere_in_the_batch(store, f):
    data = grey(120, channels=1, size=8)
    found = extract(f, "w", data, ["logits"], store)["logits"].numpy()
    np.testing.assert_allclose(found, np.broadcast_to(found[0], found.shape), rtol=1e-5, atol=1e-6)


def test_progress_counts_every_image_once(store, monkeypatch):
    done = []
    leave = module.Progress.__exit__
    monkeypatch.setattr(
        module.Progress, "__exit__", lambda self, *a: (done.append(self.done), leave(self, *a))[1]
    )
    f, data = network(), images(150)
    for _ in range(2):
        extract(f, "weights", data, ["logits"], store)
    assert done == [150, 150]
