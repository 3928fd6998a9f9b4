"""A user's own configuration files: what is wrong with them, and what they take the place of."""

import json
import os
import resource
import subprocess
import sys

import pytest
from _runs import TINY, gradbench, one_sentence

HEAD = "# @package _global_\ndefaults:\n  - override /dataset: digits\n"
FILES = {
    "experiment/misspelt.yaml": f"{HEAD}trainng: {{epochs: 1}}\n",
    "experiment/limits.yaml": f"{HEAD}limits: 50\n",
    "experiment/nested.yaml": f"{HEAD}training: {{epoch: 1}}\n",
    "experiment/wrong.yaml": f"{HEAD}training: {{epochs: many}}\n",
    "experiment/loose.yaml": "defaults:\n  - override /dataset: digits\nlimit: 50\n",
    "experiment/role.yaml": f"{HEAD}dataset: {{roles: {{tset: test}}}}\n",
    "experiment/count.yaml": f"{HEAD}dataset: {{counts: {{tset: 5}}}}\n",
    "experiment/waiting.yaml": f"{HEAD}seed: ${{limit}}\nlimit: 50\nname: waiting\n"
    "levels: ['${devices}']\ntraining: {lr: 1e-3, weight_decay: 5E-4}\nremark: 2024-01-01\n",
    "experiment/set.yaml": "# @package _global_\ndefaults:\n  - override /dataset: utf\n",
    "detector/msp.yaml": "_target_: gradbench.methods.energy.Energy\ndescription: d\n",
    "detector/hot.yaml": "_target_: gradbench.methods.energy.Energy\ntemprature: 3\n",
    "detector/pair.yaml": "members: [energy, knn]\nk: 3\n",
    "detector/five.yaml": "_target_: gradbench.methods.energy.Energy\ndescription: [5]\n",
    "protocol/three.yaml": "_target_: gradbench.protocols.base.Grouped\nfold: 3\n",
    "dataset/flips.yaml": "_target_: gradbench.data.embedded.Digits\naugment: {flp: true}\n",
    "backbone/mine.yaml": "_target_: gradbench.backbones.small_cnn.SmallCNN\nname: x\nwidht: 4\n",
}


@pytest.fixture
def mine(tmp_path):
    for name, text in FILES.items():
        path = tmp_path / "c" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for name in ("experiment/utf.yaml", "dataset/utf.yaml", "detector/utf.yaml"):
        (tmp_path / "c" / name).write_bytes(f"{HEAD}limit: 50\n".encode("utf-16"))
    return tmp_path


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("experiment=misspelt", "c/experiment/misspelt.yaml: no setting named 'trainng': did you "
                                "mean training"),
        ("experiment=limits", "limits.yaml: no setting named 'limits': did you mean limit"),
        ("experiment=nested", "no setting named 'training.epoch': did you mean training.epochs"),
        ("experiment=wrong", "wrong.yaml: training.epochs=many: write a whole number, at least 1"),
        ("experiment=loose", "write '# @package _global_' as its first line"),
        ("experiment=role", "no setting named 'dataset.roles.tset': did you mean dataset.roles.t"),
        ("experiment=count", "no split of digits named 'tset': did you mean test"),
        ("experiment=utf", "c/experiment/utf.yaml is no text in UTF-8: save it in that encoding"),
        ("experiment=set", "c/dataset/utf.yaml is no text in UTF-8: save it in that encoding"),
        ("detectors=[utf]", "c/detector/utf.yaml is no text in UTF-8: save it in that encoding"),
        ("detectors=[hot]", "no setting of detector hot named 'temprature': did you mean temperat"),
        ("detectors=[pair]", "c/detector/pair.yaml: no setting of a suite of detectors named 'k'"),
        ("detectors=[five]", "c/detector/five.yaml: description=[5]: write text"),
        ("detectors=[{use: papers, k: 3}]", "changes a suite; name its members"),
        ("protocol=three", "no setting of protocol Grouped named 'fold': did you mean folds"),
        ("dataset=flips", "flips.yaml: no setting named 'augment.flp': did you mean augment.flip"),
        ("backbone=mine", "no setting of backbone named 'widht': did you mean width"),
    ],
)  # fmt: skip
def test_what_has_no_effect_is_refused_as_on_the_command_line(mine, word, text):
    first = [] if word.startswith("experiment") else ["experiment=quickstart"]
    ran = gradbench("plan", *first, "--config-dir", "c", word, cwd=mine)
    told = one_sentence(ran._replace(err="".join(ran.err.splitlines(True)[-1:])))
    assert text in told


def test_a_file_may_refer_to_other_settings(mine):
    ran = gradbench("plan", "experiment=waiting", "--config-dir=c", "backbone=small_cnn", cwd=mine)
    assert ran.code == 0, ran.err


def test_a_list_names_a_broken_file_and_goes_on(mine):
    ran = gradbench("list", "experiments", "--config-dir", "c", cwd=mine)
    assert ran.code == 0
    (line,) = [line for line in ran.out.splitlines() if line.startswith("  limits ")]
    assert "not valid" in line
    assert "no setting named 'limits'" in line
    assert "  quickstart " in ran.out


def test_a_member_in_the_place_of_a_built_in_one_is_named(mine):
    told = "gradbench: your own files take the place of built-in ones: detector msp\n"
    assert told in gradbench("list", "detectors", "--config-dir", "c", cwd=mine).err
    words = (*TINY, "detectors=[msp]")
    assert told in gradbench("plan", *words, "--config-dir=c", cwd=mine).err
    ran = gradbench("run", *words, "--config-dir=c", cwd=mine)
    assert ran.code == 0, ran.err
    assert told in ran.err
    assert json.loads((mine / "run/run.json").read_text())["about"]["shadows"] == ["detector msp"]
    assert "take the place" not in gradbench("list", "detectors", cwd=mine).err


@pytest.mark.parametrize(
    "words",
    [("run", "name=../../x"), ("sweep", "name=../../x", "seed=0,1"), ("plan", "name=$a$"),
     ("run", "challenges=[{use: fgsm, name: ../x}]"), ("run", "detectors=[{use: knn, name: a/b}]"),
     ("run", "backbone.name=../x"), ("run", "dataset.name=../x")],
)  # fmt: skip
def test_names_lead_nowhere(tmp_path, words):
    here = tmp_path / "a" / "b"
    here.mkdir(parents=True)
    command, *rest = words
    sentence = one_sentence(gradbench(command, "experiment=quickstart", *rest, cwd=here))
    assert "a name begins with a letter or digit" in sentence
    assert [p for p in tmp_path.rglob("*") if p not in (here, here.parent)] == []


@pytest.mark.parametrize("words", [["plan", "experiment=quickstart"], ["score", "run", "a.png"]])
@pytest.mark.slow
def test_a_machine_short_of_memory_is_told_in_one_sentence(tmp_path, words):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/run.json").touch()
    limit = 400 * 2**20
    code = (
        f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({limit}, {limit}))\n"
        "from gradbench.cli import main; main()"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True, text=True, cwd=tmp_path, timeout=60,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert resource.getrlimit(resource.RLIMIT_AS)[0] != limit
    assert ran.returncode == 2, ran.stderr
    (line,) = ran.stderr.splitlines()
    assert line.startswith("gradbench: short of memory (")
    assert line.endswith("and this shell allows 0.4 GiB (ulimit -v)")
