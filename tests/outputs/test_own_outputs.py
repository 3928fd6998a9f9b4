"""An output of the user's own: one class and one file, read by name, in every command."""

import json
import sys

import numpy as np
import pytest
import torch
from _dummies import images, network
from _runs import TINY, gradbench, kept, rows

from gradbench import load
from gradbench.errors import Faulty, GradbenchError
from gradbench.outputs.base import BatchContext, Needs, Output
from gradbench.outputs.catalogue import OutputCatalogue
from gradbench.outputs.distributed import DistributedReader
from gradbench.outputs.extract import extract, select_outputs
from gradbench.outputs.read import compute_outputs, read_outputs
from gradbench.store import Store

PARTS = """
import torch

from gradbench.methods.base import Detector, Info
from gradbench.outputs.base import Needs, Output


class LayerNorms(Output):
    parameters = ("layer",)

    def __init__(self, layer: str, scale: float = 1.0):
        self.layer, self.scale = layer, scale
        self.needs = Needs(gradients=(("ones", "bce"),))

    def read(self, context):
        columns = [i for i, name in enumerate(context.parameter_names)
                   if name.startswith(self.layer + ".")]
        return self.scale * context.squared_norms("ones", "bce")[:, columns]


class MapEntropy(Output):
    needs = Needs(activations=("stage2",))

    def read(self, context):
        share = context.activations("stage2").relu().flatten(1) + 1e-6
        share = share / share.sum(1, keepdim=True)
        return -(share * share.log()).sum(1)


class Centred(MapEntropy):
    def read(self, context):
        found = super().read(context)
        return found - found.mean()


class Breaks(MapEntropy):
    def read(self, context):
        raise ValueError("no such map")


class Sum(Detector):
    info = Info("A title", "Venue 2020", "https://example.org")
    supervision = "none"

    def __init__(self, output: str):
        self.output = output
        self.reads = (output,)

    def score(self, outputs):
        values = outputs[self.output]
        return values.reshape(len(values), -1).double().sum(1)


class Threshold(Sum):
    supervision = "training"
    mean = torch.zeros(())

    def fit(self, bank, fit, choose, seed=0):
        self.mean = super().score(fit.outputs).mean()
        return self

    def score(self, outputs):
        return super().score(outputs) - self.mean

    def state(self):
        return {"mean": self.mean}

    def load(self, state):
        self.mean = state["mean"]
        return self
"""
FILES = {
    "output/head_norms": "_target_: my_outputs.LayerNorms\nlayer: fc\ndescription: of the head",
    "output/map_entropy": "_target_: my_outputs.MapEntropy\ndescription: entropy of a map",
    "output/centred": "_target_: my_outputs.Centred",
    "output/breaks": "_target_: my_outputs.Breaks",
    "detector/head": "_target_: my_outputs.Sum\noutput: head_norms",
    "detector/named": "_target_: my_outputs.Sum\noutput: head_norms/conv1",
    "detector/entropy": "_target_: my_outputs.Threshold\noutput: map_entropy",
    "detector/off": "_target_: my_outputs.Sum\noutput: centred",
    "detector/broken": "_target_: my_outputs.Threshold\noutput: breaks",
    "detector/typo": "_target_: my_outputs.Sum\noutput: hed_norms",
}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder of the user's own with classes and files, as `--config-dir` names it."""
    for name, text in FILES.items():
        place = tmp_path / "settings" / f"{name}.yaml"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text + "\n")
    (tmp_path / "my_outputs.py").write_text(PARTS)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("my_outputs", None)  # another test's
    yield tmp_path
    sys.modules.pop("my_outputs", None)


def run(project, *words):
    head = ("run", "--config-dir", str(project / "settings"), *TINY, "controls.identity=false")
    return gradbench(*head, *words, cwd=project)


def values(project, method):
    found = rows(project, method=method, fold="all", metric="auroc")
    return {row["challenge"]: row["value"] for row in found if row["value"]}


@pytest.mark.slow
def test_detectors_read_outputs_of_the_users_own_in_every_command(project):
    names = "detectors=[msp,head,named,entropy,off,broken,typo]"
    ran = run(project, names)
    assert ran.code == 0, ran.err
    for name in ("msp", "head", "named", "entropy"):
        assert values(project, name), name
    assert values(project, "head") != values(project, "named")
    for name, reason in {
        "off": "output centred: Centred.read gives an image other values beside other images",
        "broken": "output breaks: Breaks.read raises ValueError (no such map) in my_outputs.py",
        "typo": "detector typo: Sum.reads: no output named 'hed_norms': did you mean head_norms",
    }.items():
        (row,) = rows(project, method=name, challenge="gaussian_noise")
        assert row["note"].startswith(f"not measured: {reason}")
        assert reason in ran.out

    # the same once more is all there; an edit of the class, or another setting, is not
    made, good = kept(project), "detectors=[head,entropy]"
    assert run(project, good).code == 0
    assert kept(project) == made
    first = {name: values(project, name) for name in ("head", "entropy")}
    place = project / "settings/output/head_norms.yaml"
    place.write_text("_target_: my_outputs.LayerNorms\nlayer: conv1")
    text = (project / "my_outputs.py").read_text()
    (project / "my_outputs.py").write_text(text.replace("return -(share", "return (share"))
    del sys.modules["my_outputs"]
    assert run(project, good).code == 0
    assert values(project, "head") != first["head"]
    assert "outputs" in {step for step, _ in kept(project) - made}

    listed = gradbench("list", "outputs", "--config-dir", str(project / "settings")).out
    assert "head_norms" in listed
    assert "squared_norms" in listed

    # new images, of which a stranger's class is built only where it is trusted
    with pytest.raises(GradbenchError, match="my_outputs"):
        load(project / "run").choose(["head"])
    scorer = load(project / "run", trust=["my_outputs"])
    pixels = np.random.default_rng(0).integers(0, 255, (70, 1, 8, 8), np.uint8)
    table = scorer.score(pixels, ["head", "entropy"])
    assert table[["head", *(c for c in table if c.startswith("entropy@"))]].notna().to_numpy().all()
    entry = json.loads((project / "run/model/s0/model.json").read_text())["own_outputs"]
    assert set(entry) == {"head_norms", "map_entropy"}


def test_a_run_of_a_faulty_output_alone_says_why(project):
    ran = run(project, "detectors=[broken]")
    assert (ran.code, ran.out) == (2, "")
    assert "Breaks.read raises ValueError (no such map)" in ran.err.splitlines()[-1]


# without a run


class Own(Output):
    """Logits after a function of the test's own."""

    needs = Needs(layer_means=("stage1",))

    def __init__(self, change, name="own"):
        self.change, self.name = change, name

    def read(self, context: BatchContext):
        return self.change(context)


class Positive(Output):
    """Values of the logits above 0; a fault for images that have none of 4 classes."""

    name = "positive"

    def __init__(self, classes: int = 3):
        self.classes = classes

    def read(self, context: BatchContext):
        return context.logits.relu()[:, : self.classes] / (context.logits.shape[1] >= self.classes)


def test_workers_read_it_as_one_process_does(pool, tmp_path):
    f, data = network(), images(150)
    outputs = [Positive(), *OutputCatalogue().of_network(f, ["logits"])]
    alone = extract(f, "own", data, outputs, Store(tmp_path / "one"))
    reader = DistributedReader(pool, f, "own")
    found = extract(f, "own", data, outputs, Store(tmp_path / "two"), reader=reader)
    assert all(torch.equal(found[name], alone[name]) for name in ("positive", "logits"))
    outputs[0] = Positive(4)
    found = extract(f, "own", data, outputs, Store(tmp_path / "three"), reader=reader)
    assert torch.equal(found["logits"], alone["logits"])
    with pytest.raises(Faulty, match=r"Positive\.read gives 64 of 64 images a value that is not"):
        select_outputs(found, ["positive"])


def test_all_share_one_pass_and_what_is_not_declared_is_there_too(store):
    f, calls = network(), []
    f.network.register_forward_hook(lambda *_: calls.append(1))
    shared = Own(lambda c: torch.cat([c.logits, c.layer_means("stage1")], 1))
    read_outputs(f, torch.rand(5, 1, 8, 8), ["logits", "layer_means/stage1"])
    passes, seen = len(calls), calls.clear()
    outputs = [OutputCatalogue().find("logits"), OutputCatalogue().find("layer_means/stage1")]
    found = read_outputs(f, torch.rand(5, 1, 8, 8), [*outputs, shared])
    assert len(calls) == passes
    assert torch.equal(found["own"], torch.cat([found["logits"], found["layer_means/stage1"]], 1))
    more = Own(lambda c: torch.cat([c.features, c.activations("stage2").flatten(1)], 1))
    x = torch.rand(5, 1, 8, 8)
    found = read_outputs(f, x, [more, *outputs[:1]])
    assert torch.equal(found["own"][:, :16], read_outputs(f, x, ["features"])["features"])
    assert seen is None


def test_it_gets_copies_of_what_others_read():
    f, x = network(), torch.rand(5, 1, 8, 8)
    greedy = Own(lambda c: c.logits.zero_() + c.images.zero_().sum())
    logits = OutputCatalogue().find("logits")
    found = read_outputs(f, x, [greedy, logits])
    assert torch.equal(found["logits"], read_outputs(f, x, ["logits"])["logits"])
    assert x.min() >= 0
    assert x.max() > 0


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda c: None, r"Own.read gives None: a tensor \(64, \.\.\.\) of numbers is due"),
        (lambda c: c.logits[:-1], r"a tensor \(63, 3\) for 64 images: \(64, \.\.\.\) is due"),
        (lambda c: c.logits[:, :0], r"a tensor \(64, 0\) for 64 images: .* at least one number"),
        (lambda c: c.logits.sum(), r"a tensor \(\) for 64 images"),
        (lambda c: c.logits / 0, "gives 64 of 64 images a value that is not finite"),
        (lambda c: c.logits - c.logits.mean(0), "other values beside other images"),
        (lambda c: c.logits / len(c.logits), "other values beside other images"),
        (lambda c: c.logits + torch.rand_like(c.logits), "other values the second time"),
        (lambda c: c.logits @ torch.ones(3, len(c.images)), "one shape is due"),
        (lambda c: c.layer_means("stag2"), "no layer named 'stag2': did you mean stage2"),
        (lambda c: c.squared_norms("onez", "bce"), "no label named 'onez': did you mean ones"),
        (lambda c: c.nothing, r"raises AttributeError .* in .*test_own_outputs.py, line \d+"),
    ],
)
def test_a_fault_is_one_sentence_and_the_others_are_there(store, change, text):
    f, data = network(), images(130)
    wanted = [*OutputCatalogue().of_network(f, ["logits"]), Own(change)]
    found = extract(f, "w", data, wanted, store)
    assert torch.equal(found["logits"], extract(f, "w", data, ["logits"], store)["logits"])
    with pytest.raises(Faulty, match=text):
        select_outputs(found, ["own"])
    with pytest.raises(Faulty, match=text):
        found.select([0, 1]).join(found)["own"]
    assert "\n" not in found.faults["own"]


def test_a_change_of_the_network_stops_the_run():
    f = network()

    def change(context):
        context.backbone.network.fc.weight.data.mul_(1)
        with torch.no_grad():
            context.backbone.network.fc.weight.mul_(2)
        return context.logits

    with pytest.raises(GradbenchError, match=r"Own\.read changes the network"):
        compute_outputs(f, images(5), slice(0, 5), [Own(change)])


def test_names_take_arguments_or_the_values_of_the_file(project):
    catalogue = OutputCatalogue([project / "settings"])
    assert catalogue.find("head_norms").layer == "fc"
    assert catalogue.find("head_norms/stage1.0").layer == "stage1.0"
    for name in ("head_norms/", "map_entropy/x"):
        with pytest.raises(GradbenchError, match="is misnamed: write"):
            catalogue.find(name)
    assert catalogue.users_own(["logits", "head_norms/conv1"]).keys() == {"head_norms"}
    assert catalogue.find("squared_norms/ones/bce").identity == 2
    assert set(catalogue.find("head_norms").identity) == {"version", "settings", "code"}
    (project / "settings/output/bad.yaml").write_text("_target_: my_outputs.Sum\noutput: logits\n")
    with pytest.raises(GradbenchError, match=r"output bad: .* builds no output"):
        catalogue.find("bad")
