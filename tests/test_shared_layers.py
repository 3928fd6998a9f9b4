"""A network with a layer under two names, through every door: store, folder, checkpoint, score."""

import numpy as np
import pytest
from _runs import TINY, about, gradbench, kept, rows, same_results
from PIL import Image
from safetensors.torch import load_file

NETWORK = """
from torch import nn

class Tied(nn.Module):
    def __init__(self, classes, channels=1):
        super().__init__()
        self.a = nn.Conv2d(channels, 8, 3, padding=1)
        self.b = self.c = nn.Conv2d(8, 8, 3, padding=1)
        self.d = self.e = nn.BatchNorm2d(8)
        self.nothing = nn.ModuleDict()
        self.fc = nn.Linear(8, classes)

    def forward(self, x):
        x = self.d(self.b(self.a(x).relu())).relu()
        return self.fc(self.e(self.c(x)).relu().mean((2, 3)))
"""
pytestmark = pytest.mark.slow
WORDS = (*TINY, "backbone=custom", "backbone._target_=tied_network.Tied")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tied")
    (folder / "tied_network.py").write_text(NETWORK)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        ran = gradbench("run", *WORDS, cwd=folder)
        assert ran.code == 0, ran.err
        yield folder


def test_the_same_command_again_computes_nothing(finished):
    before = kept(finished)
    results = (finished / "run/results.csv").read_bytes()
    ran = gradbench("run", *WORDS, cwd=finished)
    assert ran.code == 0, ran.err
    assert about(finished)["time"]["products_made"] == 0
    assert kept(finished) == before
    assert (finished / "run/results.csv").read_bytes() == results


def test_its_checkpoint_gives_the_same_rows(finished, tmp_path):
    path = finished / "run/model/s0/network.safetensors"
    ran = gradbench("run", *WORDS, f"backbone.checkpoint={path}", cwd=tmp_path)
    assert ran.code == 0, ran.err
    names = ("challenge", "method", "metric", "value")
    given, again = ([{n: r[n] for n in names} for r in rows(f)] for f in (finished, tmp_path))
    assert given == again
    assert not same_results(finished, tmp_path)  # the note on the network
    assert about(tmp_path)["networks"]["0"]["origin"] == "network.safetensors"


def test_its_folder_holds_each_tensor_once_and_scores_pictures(finished):
    names = load_file(finished / "run/model/s0/network.safetensors").keys()
    assert {"b.weight", "d.running_mean"} <= names
    assert not {"c.weight", "e.running_mean"} & names
    picture = np.arange(64, dtype=np.uint8).reshape(8, 8)
    Image.fromarray(picture).save(finished / "a.png")
    words = ("score", "run", "a.png", "--trust", "tied_network", "--out", "scores.csv")
    ran = gradbench(*words, cwd=finished)
    assert ran.code == 0, ran.err
    assert "a.png" in (finished / "scores.csv").read_text()
