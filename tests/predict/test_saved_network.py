"""What is built from a run's folder, and what is refused."""

import json
import os
import subprocess
import sys

import pytest
import torch
from _runs import copy_of
from _scored import finished
from safetensors.torch import load_file, save_file

import gradbench as package
from gradbench.backbones.build import build_network
from gradbench.backbones.small_cnn import SmallCNN
from gradbench.errors import GradbenchError
from gradbench.methods.base import Detector
from gradbench.predict import trust
from gradbench.store import file_digest

pytestmark = pytest.mark.slow  # all look at one finished run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return finished(tmp_path_factory.getbasetemp())


@pytest.fixture
def run(folder, tmp_path):
    """Return a run's model that a test may damage: without run.json, which tells of changes."""
    run = copy_of(folder / "run", tmp_path / "run")
    (run / "run.json").unlink()
    return run


def change(run, edit):
    """Change model.json of a run."""
    path = run / "model/s0/model.json"
    about = json.loads(path.read_text())
    edit(about)
    path.write_text(json.dumps(about))


def refused(run, *detectors, **options) -> str:
    """Return the sentence with which a run is refused."""
    with pytest.raises(GradbenchError) as told:
        package.load(run, **options).choose(list(detectors) or None)
    assert "\n" not in str(told.value)
    return str(told.value)


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "gradbench.cli.os.system",
        "torchvision.datasets.utils.download_url",
        "torchvision.models.os.system",
        "gradbench.store.Store",
        "torch.nn.Linear",
        "torchvision.ops.MLP",
        "torchvision.models.detection.fasterrcnn_resnet50_fpn",
        "torchvision.models.detection.FasterRCNN",
        "torchvision.models.segmentation.fcn_resnet50",
        "torchvision.models.quantization.resnet18",
        "torchvision.models.video.r3d_18",
        "torchvision.models.ResNet18_Weights",
        "subprocess.Popen",
        "gradbench.no_such.Thing",
    ],
)
def test_no_other_class_is_built(run, target, monkeypatch):
    monkeypatch.setattr(os, "system", lambda *_: pytest.fail("executed"))
    for edit in (
        lambda about: about["network"].update(_target_=target, arguments={"command": "true"}),
        lambda about: about["detectors"][1]["config"].update(_target_=target),
    ):
        changed = copy_of(run, run.parent / "changed")
        change(changed, edit)
        sentence = refused(changed)
        assert str(target) in sentence
        if not str(target).startswith(("gradbench", "torchvision")):
            assert "--trust" in sentence


@pytest.mark.parametrize("kind", ["logits", "features", "layer_means", "squared_norms"])
def test_no_output_is_built_that_is_not_trusted(run, kind, monkeypatch):
    monkeypatch.setattr(os, "system", lambda command: pytest.fail("executed"))
    command = {"config": {"_target_": "os.system", "command": "true"}, "version": 1}
    change(run, lambda about: about.update(own_outputs={kind: command}))
    for detector in ("knn", "msp", "mahalanobis_p"):  # whether they read it or not
        with pytest.raises(GradbenchError, match=r"the run wants os\.system"):
            package.load(run).score(torch.zeros(2, 1, 8, 8), detector)


def test_a_module_is_imported_only_if_it_is_trusted(run, tmp_path, monkeypatch):
    (tmp_path / "own_parts.py").write_text(
        "from gradbench.methods.energy import Energy as Inner\n"
        "from gradbench.backbones.small_cnn import SmallCNN\n"
        "import os\n"
        "class Energy(Inner):\n    pass\n"
        "def network(**arguments):\n    return SmallCNN(**arguments)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    def edit(about):
        about["network"]["_target_"] = "own_parts.network"
        about["detectors"][1]["config"]["_target_"] = "own_parts.Energy"

    change(run, edit)
    assert "--trust own_parts (from Python trust=['own_parts'])" in refused(run)
    assert "own_parts" not in sys.modules
    scorer = package.load(run, trust=["own_parts"])
    found = scorer.score(torch.zeros(2, 1, 8, 8), ["msp"])  # which is an energy now
    logits = scorer.backbone(torch.zeros(1, 1, 8, 8)).double()
    assert found["msp"][0] == pytest.approx(-logits.logsumexp(1).item(), rel=1e-6)
    change(run, lambda about: about["network"].update(_target_="own_parts.os.system"))
    assert "it is not built" in refused(run, trust=["own_parts"])


@pytest.mark.parametrize(
    "arguments", [{}, {"pretrained": True}, {"weights": "DEFAULT"}, {"weights_backbone": "DEFAULT"}]
)
def test_no_weights_are_fetched(arguments, monkeypatch):
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *_: pytest.fail("fetched"))
    for target in ("resnet18", "detection.fasterrcnn_resnet50_fpn"):
        config = {"_target_": f"torchvision.models.{target}", "arguments": arguments}
        told = trust.without_downloads(config)["arguments"]
        assert told["weights"] is None
        assert "pretrained" not in told
        if "weights_backbone" not in arguments or target != "resnet18":  # which takes none
            build_network(trust.without_downloads(config))


def test_torchvision_builders_are_built_and_fetch_no_weights():
    trust.check("torchvision.models.resnet18", torch.nn.Module)
    trust.check("torchvision.models.ResNet", torch.nn.Module)
    config = {"_target_": "torchvision.models.resnet18", "arguments": {"weights": "DEFAULT"}}
    assert trust.without_downloads(config)["arguments"] == {"weights": None}
    own = {"_target_": "own.Net", "arguments": {"weights": "a"}}
    assert trust.without_downloads(own) == own
    with pytest.raises(GradbenchError):
        trust.check("torchvision.models.resnet18", Detector)
    with pytest.raises(GradbenchError):
        trust.check("gradbenchmark.Net", torch.nn.Module)


def test_what_is_missing(folder, run, tmp_path):
    assert "there is no run at nowhere" in refused("nowhere")
    assert "has no model/" in refused(tmp_path)
    assert "no network of seed 3: 0" in refused(run, seed=3)
    assert "device=cuda:7 is not here" in refused(run, device="cuda:7")
    assert package.load(run, device=torch.device("cpu")).choose(["msp"]) == ["msp"]
    (run / "model/s0/detectors/knn.safetensors").unlink()
    assert "knn.safetensors is missing" in refused(run)
    assert package.load(run).choose(["msp"]) == ["msp"]  # the others still can


@pytest.mark.parametrize("name", ["network.safetensors", "detectors/knn.safetensors"])
def test_damage_is_seen(run, name):
    path = run / "model/s0" / name
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    assert f"{name} is damaged" in refused(run)


def test_a_model_json_that_is_not_the_runs(run, folder):
    (run / "run.json").write_bytes((folder / "run/run.json").read_bytes())
    assert package.load(run).choose(["msp"]) == ["msp"]
    change(run, lambda about: about["classes"].reverse())
    assert "model.json is broken off" in refused(run)
    assert "carry out its command" in refused(run)
    (run / "run.json").write_text("[")
    assert "run.json is damaged" in refused(run)


def test_a_model_json_that_is_not_one(run):
    path = run / "model/s0/model.json"
    whole = path.read_text()
    change(run, lambda about: about.pop("sha256"))
    assert "says nothing of sha256" in refused(run)
    for text in ("{", "[]", "3"):
        path.write_text(text)
        assert "model.json" in refused(run)
    path.write_text(whole)
    change(run, lambda about: about["detectors"][1].pop("threshold"))
    assert "says nothing of detectors.1.threshold" in refused(run)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("network", [None, "SmallCNN", [], {"_target_": "a"}, {"_target_": "a", "arguments": []}]),
        ("network._target_", [None, 3]),
        ("detectors.1.config._target_", [None, ["os.system"]]),
        ("mean", [None, 3, [], [1, 2], ["a"], [True], [float("nan")], [10**400], {"0": 1}]),
        ("std", [[], [0], [-1.0], [float("inf")], "1"]),
        ("classes", [None, 3, [], "0123456789", [0] * 10, ["one", "two"]]),
        (
            "shape",
            [[], None, [1, 8], [1, 8, 8, 8], [1, 8, 0], [2, 8, 8], [1, 8, 8.0], [1, 8, 9**9]],
        ),
        ("resampling", [None, [], {"filter": 3}, {"filter": "x"}, {"size": 8}, {"antialias": 2}]),
        ("feature_layers", [3, [3], "stage1", {}]),
        ("in_dist", [None, 3]),
        ("outputs", [None, [], {"logits": "2"}]),
        ("kept", [None, "95", 0, 101, True]),
        ("sha256", [None, [], {"network.safetensors": 3}]),
        ("detectors", [None, {}, "msp", [3], [None]]),
        ("detectors.1.name", [None, 3, "", "knn"]),
        ("detectors.1.column", [None, [], "class", "knn", "msp@fgsm"]),
        ("detectors.1.config", [None, [], "msp"]),
        ("detectors.1.version", [None, "1", 1.0, True]),
        ("detectors.1.fitted_on", [None, {}]),
        ("detectors.1.state", [None, 3, "../../../x.safetensors", "/x", "a/../b", "a\\b", "a\0"]),
        ("detectors.1.threshold", [3, [], {}, {"value": "1", "images": 1, "note": ""}]),
    ],
)
def test_every_field_of_a_model_json_is_what_it_must_be(run, name, values):
    path = run / "model/s0/model.json"
    whole = path.read_text()
    for value in values:
        about = json.loads(whole)
        *way, last = name.split(".")
        place = about
        for step in way:
            place = place[int(step) if step.isdecimal() else step]
        place[last] = value
        path.write_text(json.dumps(about))
        sentence = refused(run)
        assert any(
            start in sentence
            for start in (
                f"{path} is damaged: {name}",
                f"{path} says nothing of {name}",
                f"{path} is damaged: detectors.1.column must be" * (name == "detectors.1.name"),
            )
            if start
        ), (value, sentence)


def test_other_damages_of_a_model_json(run, monkeypatch):
    path = run / "model/s0/model.json"
    whole = path.read_bytes()
    half = json.dumps(json.loads(whole) | {"classes": ["\ud800"] * 10}).encode()
    twice = b'{"mean": [0], ' + whole.lstrip()[1:]
    for content in (b"[" * 100_000, b"\xff", b"1" * 5000, half, twice):
        path.write_bytes(content)
        assert "model.json is damaged" in refused(run)
    path.write_bytes(whole)
    change(run, lambda about: about["network"]["arguments"].update(width=[3]))
    assert "refuses its arguments" in refused(run)
    path.write_bytes(whole)
    change(run, lambda about: about.update(shape=[3, 8, 8], mean=[0.5] * 3, std=[1] * 3))
    assert "shape must be the shape that the network takes" in refused(run)
    monkeypatch.setattr(SmallCNN, "__init__", lambda *_, **__: {}["width"])
    assert "network must be the arguments of gradbench.backbones.small_cnn" in refused(run)


def test_a_state_with_which_nothing_can_be_scored(run):
    place = "detectors/knn.safetensors"
    path = run / "model/s0" / place
    state = load_file(path)
    save_file({name: tensor[..., :1].contiguous() for name, tensor in state.items()}, path)
    change(run, lambda about: about["sha256"].update({place: file_digest(path)}))
    with pytest.raises(GradbenchError, match=r"^knn of .* cannot score these images"):
        package.load(run).score(torch.zeros(2, 1, 8, 8), ["knn"])


def test_another_version_is_refused(run):
    change(run, lambda about: about["detectors"][2].update(version=99))
    assert "knn is of version 99, this gradbench has" in refused(run)
    change(run, lambda about: about["detectors"][2].update(version=1))
    change(run, lambda about: about["outputs"].pop("features"))
    assert "output features is of version None" in refused(run)


def test_a_state_of_another_detector(run):
    def edit(about):
        entries = {d["column"]: d for d in about["detectors"]}
        entries["knn"]["state"] = entries["gradient_oneclass"]["state"]

    change(run, edit)
    assert "does not fit knn" in refused(run)


def test_detectors_by_name(run):
    sentence = refused(run, "mps")
    assert "no detector of this run named 'mps': did you mean msp?" in sentence
    assert "gradient_logistic@gaussian_noise 5" in sentence
    only = [0]
    change(run, lambda about: about.update(detectors=[about["detectors"][i] for i in only]))
    assert "every detector of this run was fitted on a challenge" in refused(run)
    change(run, lambda about: about.update(detectors=[]))
    assert "holds no detector" in refused(run)


def test_no_detector_is_named(run):
    with pytest.raises(GradbenchError, match=r"^no detector is named: name some of gradient"):
        package.load(run).choose([])


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"run": "~no such user"}, "there is no user of that name"),
        ({"run": "n" * 300}, "there is no run at nnn"),
        ({"run": "a\nb\x1b[1m"}, r"there is no run at a\nb\x1b[1m"),
    ],
)
def test_what_is_no_run_and_no_name(run, given, told):
    given = {"run": run} | given
    assert told in refused(**given)


def test_torch_is_imported_late():
    code = "import sys, gradbench; print('torch' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ran.stdout == "False\n", ran.stderr
