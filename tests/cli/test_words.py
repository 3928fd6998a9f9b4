"""First words, help and completion: quick answers without heavy libraries."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from _runs import SMALL, gradbench, one_sentence

from gradbench import __version__
from gradbench.cli import COMMANDS
from gradbench.cli.data_command import ACTIONS

LIGHT = """
import io, os, sys
from contextlib import redirect_stdout
from gradbench.cli import main
with redirect_stdout(io.StringIO()):
    for words in (["--help"], ["--version"], ["list"], ["data", "list"], ["data", "--help"],
                  ["run", "--help"], ["store", "--help"], ["score", "--help"]):
        try:
            main(words)
        except SystemExit:
            pass
    for line in ("gradbench ru", "gradbench list ", "gradbench run backbone=sm"):
        os.environ.update(COMP_LINE=line, COMP_POINT=str(len(line)))
        try:
            main(["-sc", "query=bash"])
        except SystemExit:
            pass
heavy = ("torch", "pandas", "sklearn", "scipy", "matplotlib")
print([name for name in heavy if name in sys.modules])
"""


def python(code: str, *words: str, **env: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, env=env, timeout=120
    )


@pytest.mark.slow
def test_help_list_and_completion_import_nothing_heavy():
    ran = python(LIGHT)
    assert ran.stdout == "[]\n", ran.stderr


def test_a_real_process_ends_with_code_2_and_one_line(tmp_path):
    ran = python("from gradbench.cli import main; main()", "run", "experiment=quickstrt")
    assert ran.returncode == 2
    assert ran.stdout == ""
    (line,) = ran.stderr.splitlines()
    assert line.startswith("gradbench: no experiment named 'quickstrt': did you mean quickstart?")


def test_help_names_every_command():
    for words in ((), ("--help",), ("-h",), ("help",)):
        ran = gradbench(*words)
        assert ran.code == 0
        for command in COMMANDS:
            assert f"    {command} " in ran.out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command):
    ran = gradbench(command, "--help")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(f"usage: gradbench {command}")


def test_version():
    assert gradbench("--version").out == f"gradbench {__version__}\n"


def test_a_command_that_there_is_not():
    sentence = one_sentence(gradbench("rum"))
    assert sentence.startswith("no command named 'rum': did you mean run")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("gradbench ru", {"run"}),
        ("gradbench s", {"sweep", "show", "score", "store"}),
        ("gradbench run backbone=sm", {"backbone=small_cnn"}),
        ("gradbench run experiment=qu", {"experiment=quickstart"}),
        ("gradbench list ", {"experiments", "backbones", "datasets", "challenges", "detectors",
                             "outputs", "protocols"}),
        ("gradbench store ", {"ls", "verify", "prune"}),
        ("gradbench store v", {"verify"}),
        ("gradbench data ", {*ACTIONS}),
        ("gradbench data verify cifar", {"cifar10", "cifar100", "cifar10c"}),
        ("gradbench data fetch svhn mn", {"mnist"}),
        ("gradbench data list ", set()),
        ("gradbench score run --o", {"--out"}),
    ],
)  # fmt: skip
def test_completion(monkeypatch, line, expected):
    monkeypatch.setenv("COMP_LINE", line)
    monkeypatch.setenv("COMP_POINT", str(len(line)))
    assert set(gradbench("-sc", "query=bash").out.split()) == expected


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("out=a=b", """two pairs of quotes, "out='a=b'\""""),
        ("dataset.path=My Photos (2020)", """"dataset.path='My Photos (2020)'\""""),
        ("out=x[1]", """"out='x[1]'\""""),
        ("out={a", """"out='{a'\""""),
        ("--resolve", "change what --cfg job prints"),
        ("--cfg", "--cfg: job or hydra or all must follow"),
        ("--cfg=jobs", "no --cfg of plan named 'jobs': did you mean job?"),
        ("--info=everything", "no --info named 'everything': valid choices are all, config, d"),
        ("--config-name=other", "no option of plan named '--config-name'"),
        ("--experimental-rerun=x", "no option of plan named"),
        ("experiment=null", "leave it out for no experiment"),
        ("challenges=" + 400 * "[" + 400 * "]", "more than 30 brackets in each other"),
        ("backbone=[small_cnn]", "no backbone named '[small_cnn]'"),
        ("backbone.arguments={classes: n}", "add it with a plus, +backbone.arguments=…"),
        ("+backbone.depht=3", "no setting of backbone named 'depht'"),
        ("dataset.counts={tst: 3}", "no setting named 'dataset.counts.tst': did you mean dataset"),
        ("device='two\nlines'", r"device=two\nlines is not here"),
    ],
)
def test_words_that_a_library_would_answer(tmp_path, word, text):
    assert text in one_sentence(gradbench("plan", "experiment=quickstart", word, cwd=tmp_path))


UNQUOTED = re.compile(r"(?<![\w'\".\[])\+?[a-z_]+(?:\.[a-z_]+)*=[^\sA-Z'\"`|]*[\[{(*][^\s`]*")
"""A setting with a bracket or brace that bash or zsh would read themselves."""


@pytest.mark.parametrize(
    "name", ["README.md", "docs/FOOTGUNS.md", "CONTRIBUTING.md", *COMMANDS, ""]
)
def test_what_is_written_to_be_pasted_stands_in_quotes(name):
    if name.endswith(".md"):
        page = (Path(__file__).parents[2] / name).read_text(encoding="utf-8")
        text = re.sub(r"```python\n.*?```", "", page, flags=re.DOTALL)
    else:
        text = gradbench(*name.split(), "--help").out + gradbench("data", "show", "--help").out
    assert UNQUOTED.findall(text) == []


@pytest.mark.parametrize(
    "words",
    [
        ("--cfg", "job"),
        ("experiment=quickstart", "--cfg", "job"),
        ("experiment=quickstart", "--cfg=job", "seed=3"),
    ],
)
def test_cfg_prints_the_configuration_and_runs_nothing(tmp_path, words):
    ran = gradbench("run", *words, cwd=tmp_path)
    assert (ran.code, ran.err) == (0, "")
    name = "quickstart" if "experiment=quickstart" in words else "custom"
    assert f"\nname: {name}\n" in ran.out
    assert f"\nseed: {3 if 'seed=3' in words else 0}\n" in ran.out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("info", [("--info",), ("--info", "defaults")])
@pytest.mark.parametrize("last", [(), ("limit=100",)])
def test_info_tells_how_the_configuration_came_about(tmp_path, info, last):
    ran = gradbench("run", *SMALL, *info, *last, cwd=tmp_path)
    assert ran.code == 0
    assert "experiment/quickstart" in ran.out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "near"),
    [
        (("backbone=densenet_bc_100_12", "backbone.width=32"), "backbone.depth"),
        (("backbone=densenet_bc_100_12", "backbone.grow=24"), "backbone.growth"),
        (("experiment=quickstart", "backbone.depth=18"), "backbone.width"),
    ],
)
def test_a_setting_that_another_backbone_has(words, near):
    sentence = one_sentence(gradbench("run", *words))
    wrong = words[-1].split("=")[0]
    assert sentence.startswith(f"no setting named '{wrong}': did you mean ")
    assert near in sentence
    assert sentence.count(f"{wrong} ") == 0


def test_home_is_written_out(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    ran = gradbench("run", "out=~/a", "store=~/b", "--cfg", "job")
    assert f"out: {tmp_path}/a\n" in ran.out
    assert f"store: {tmp_path}/b\n" in ran.out
    assert "no store at" in one_sentence(gradbench("store", "ls", "store=~/b"))
    (tmp_path / "b").mkdir()
    assert gradbench("store", "ls", "store=~/b").code == 0
