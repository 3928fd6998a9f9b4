"""Networks published by others: found, checked by SHA-256, with their own normalisation."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from _runs import TINY, about, gradbench, one_sentence, rows

from gradbench.backbones.checkpoint import save_checkpoint
from gradbench.backbones.published import published_file, resolve_published
from gradbench.backbones.small_cnn import SmallCNN
from gradbench.backbones.trained_network import find_network
from gradbench.config import compose, group_files, load_member
from gradbench.data.imageset import to_float
from gradbench.errors import GradbenchError
from gradbench.run.context import network_request
from gradbench.run.experiment import build_experiment
from gradbench.store import file_digest

ROOT = os.environ.get("GRADBENCH_DATA")
MEAN, STD = [0.25], [0.5]
ORIGIN = "published at https://example.org/nets, licence: MIT, SHA-256 {}…; accuracy 97.5 % "
ORIGIN += "published, not measured; of digits"
WORDS = (*(word for word in TINY if not word.startswith(("data.root", "training"))), "data.root=.")
WORDS += ("--config-dir", "own", "backbone=mine", "backbone.checkpoint=published", "limit=60")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a published network of the digits and its entry."""
    here = tmp_path_factory.mktemp("published")
    (here / "networks").mkdir()
    (here / "own" / "backbone").mkdir(parents=True)
    torch.manual_seed(0)
    path = here / "networks" / "digits.safetensors"
    save_checkpoint(path, SmallCNN(10, 1, 4), {})
    entry = {
        "origin": "https://example.org/nets",
        "licence": "MIT",
        "files": {"first.pt": "0" * 64, path.name: file_digest(path)},
        **{"mean": MEAN, "std": STD, "trained_on": "all"},
        **{"published_accuracy": 97.5, "measured_accuracy": None, "remark": "of digits"},
    }
    content = load_member("backbone", "small_cnn") | {"name": "mine", "width": 4}
    content["published"] = {"digits": entry, "svhn": entry}
    (here / "own" / "backbone" / "mine.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return here


def test_a_run_says_whose_network_it_is_and_takes_its_normalisation(folder):
    ran = gradbench("run", *WORDS, cwd=folder)
    assert ran.code == 0, ran.err
    origin = ORIGIN.format(file_digest(folder / "networks" / "digits.safetensors")[:12])
    assert about(folder)["networks"]["0"]["origin"] == f"digits.safetensors ({origin})"
    assert f"mine of width 4 ({origin}), test accuracy" in (folder / "run/table.md").read_text()
    (network,) = rows(folder, role="network", metric="accuracy")
    assert origin in network["note"]
    model = json.loads((folder / "run" / "model" / "s0" / "model.json").read_text())
    assert (model["mean"], model["std"]) == (MEAN, STD)
    assert "f was trained on all training images" in model["hold_out"]


def test_the_list_tells_what_is_at_hand(folder):
    out = gradbench("list", "backbones", "data.root=.", "--config-dir", "own", cwd=folder).out
    line = "published for {}, accuracy 97.5 % published, not measured, "
    assert line.format("digits") + "found: networks/digits.safetensors\n" in out
    out = gradbench("list", "backbones", "data.root=own", "--config-dir", "own", cwd=folder).out
    wanted = "own/networks holds no first.pt or digits.safetensors (of https://example.org/nets)\n"
    assert line.format("svhn") + f"not found: {wanted}" in out


@pytest.mark.parametrize("command", ["run", "plan"])
def test_another_file_under_the_name_is_refused(folder, tmp_path, command):
    (tmp_path / "networks").mkdir()
    save_checkpoint(tmp_path / "networks" / "first.pt", SmallCNN(10, 1, 4), {})
    words = [w for w in WORDS if not w.startswith("data.root")] + [f"data.root={tmp_path}"]
    ran = gradbench(command, *words, "out=other", "store=other_store", cwd=folder)
    text = one_sentence(ran)
    assert "first.pt is not the published file: its SHA-256 is " in text
    assert f"due is {'0' * 64} of https://example.org/nets" in text


def test_what_is_not_there_is_one_sentence(folder):
    config = yaml.safe_load((folder / "own/backbone/mine.yaml").read_text())
    config["checkpoint"] = "published"
    with pytest.raises(GradbenchError, match=r"nowhere/networks holds no first.pt or digits.safe"):
        resolve_published(config, "digits", "nowhere")
    with pytest.raises(GradbenchError, match=r"mine is known for the data set mnist: there is one"):
        resolve_published(config, "mnist", folder)
    with pytest.raises(GradbenchError, match=r"mine is known for the data set mnist: there is non"):
        resolve_published(config | {"published": None}, "mnist", folder)


def test_the_users_word_on_its_training_images_counts(folder):
    config = yaml.safe_load((folder / "own/backbone/mine.yaml").read_text())
    asked = config | {"checkpoint": "published", "trained_on": "names.txt"}
    assert resolve_published(asked, "digits", folder)["trained_on"] == "names.txt"
    assert "published" not in resolve_published(config, "digits", folder)


def known() -> list[tuple[str, str]]:
    members = {name: load_member("backbone", name) for name in group_files("backbone")}
    return [(name, of) for name, content in members.items() for of in content.get("published", ())]


@pytest.mark.data
@pytest.mark.parametrize(("name", "of"), known())
def test_published_networks_classify_as_measured(name, of, store):
    """300 test images; the whole test set gives `measured_accuracy`."""
    entry = load_member("backbone", name)["published"][of]
    if not ROOT or not published_file(entry, ROOT):
        pytest.skip("the network is not under GRADBENCH_DATA")
    words = [f"backbone={name}", f"dataset={of}", "backbone.checkpoint=published"]
    experiment = build_experiment(compose([*words, f"data.root={ROOT}", "data.download=false"]))
    if reason := experiment.dataset.ready("test", experiment.data):
        pytest.skip(f"{of}: {reason}")
    test = experiment.dataset.load("test", experiment.data)
    f = find_network(network_request(experiment, SimpleNamespace(train=test), 0), test, store)
    part = range(0, len(test), max(len(test) // 300, 1))
    with torch.inference_mode():
        classes = f(to_float(test.images[list(part)])).argmax(1).numpy()
    accuracy = 100 * (classes == test.labels[list(part)]).mean()
    assert accuracy == pytest.approx(entry["measured_accuracy"], abs=4)
    assert entry["mean"] == pytest.approx(f.mean.flatten().tolist())


def test_files_are_named_with_their_sha256():
    for name, of in known():
        for file, sha in load_member("backbone", name)["published"][of]["files"].items():
            assert Path(file).name == file
            assert len(sha) == 64
