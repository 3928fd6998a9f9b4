"""Nothing is imported from the working folder, which may be a stranger's."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from _runs import copy_of, reference

from gradbench.cli import leave_out_working_folder

ROOT = Path(__file__).parents[2]
NAMES = (
    *("bottleneck", "numexpr", "pyarrow", "numba", "torch", "PIL", "pandas", "matplotlib", "yaml"),
    *("msgspec", "jinja2", "hydra", "omegaconf", "dotenv", "tqdm", "safetensors", "accelerate"),
    *("secrets", "sitecustomize", "usercustomize", "my_parts"),
)
"""Modules that gradbench or its libraries import, some of them only where they are there."""
SPY = "import os\nopen(os.environ['SEEN'], 'a').write(__name__ + '\\n')\n"
MANY = """
import sys
from gradbench.cli import main
for line in sys.stdin.read().splitlines():
    sys.argv = ["gradbench", *line.split()]
    try:
        main()
    except SystemExit as stop:
        print("exit", stop.code, line, file=sys.stderr)
print("done")
"""


@pytest.fixture(scope="module")
def downloaded(tmp_path_factory):
    """Return a folder with a run, a picture and modules that tell when they are imported."""
    finished = reference(tmp_path_factory.getbasetemp())
    here = tmp_path_factory.mktemp("downloaded")
    copy_of(finished / "run", here / "run")
    (here / "pictures").mkdir()
    (here / "pictures/a.pgm").write_bytes(b"P5 8 8 255\n" + bytes(range(64)))
    for name in NAMES:
        (here / f"{name}.py").write_text(SPY)
    for name in ("hydra_plugins/evil/__init__.py", "configs/dataset/evil.py"):
        (here / name).parent.mkdir(parents=True)
        (here / name).write_text(SPY)
    (here / "configs/config.yaml").write_text("defaults: [nothing]\n")
    (here / ".hydra").mkdir()
    (here / ".hydra/config.yaml").write_text("a: [")
    (here / "matplotlibrc").write_bytes(b"font.size: \xff\n")
    (here / ".env").write_text("GRADBENCH_STORE=/nowhere\n")
    return here


def seen(here, command, lines=()):
    """Run a command in the folder; return what was imported from there, and its process."""
    log = here / "seen.txt"
    log.write_text("")
    env = {**os.environ, "OMP_NUM_THREADS": "1", "SEEN": str(log), "PYTHONPATH": str(ROOT)}
    env.pop("PYTHONSAFEPATH", None)
    ran = subprocess.run(
        [sys.executable, *command],
        cwd=here, env=env, input="\n".join(lines), capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    return log.read_text().split(), ran


@pytest.mark.slow
def test_commands_that_read_strangers_files_import_none_of_them(downloaded):
    lines = (
        *("show run", "show run --all", "report run out=r.html", "tables ood results=."),
        *("store ls store=run", "data list data.root=pictures", "score run pictures"),
        "data verify folder dataset.path=pictures dataset._target_=my_parts.Set",
    )
    imported, ran = seen(downloaded, ["-P", "-c", MANY], lines)
    assert ran.stdout.endswith("done\n"), ran.stderr
    assert imported == []
    assert (downloaded / "run/scores.csv").is_file()
    assert (downloaded / "r.html").is_file()
    assert "Traceback" not in ran.stderr


@pytest.mark.slow
def test_python_m_leaves_the_folder_out_too(downloaded):
    words = ["-m", "gradbench", "score", "run", "pictures", "--out", "m.csv"]
    imported, ran = seen(downloaded, words)
    assert ran.returncode == 0, ran.stderr
    assert imported == []
    assert "1 picture," in ran.stdout


@pytest.mark.slow
def test_the_folder_of_settings_that_is_named_is_imported_from(downloaded, tmp_path):
    (tmp_path / "own/detector").mkdir(parents=True)
    (tmp_path / "own/own_parts.py").write_text(
        "from gradbench.methods.energy import Energy\n" + SPY
    )
    (tmp_path / "own/detector/mine.yaml").write_text("_target_: own_parts.Energy\n")
    words = ["list", "detector=mine", "--config-dir", str(tmp_path / "own")]
    imported, ran = seen(downloaded, ["-m", "gradbench", *words])
    assert (imported, ran.returncode) == (["own_parts"], 0), ran.stderr


@pytest.mark.parametrize(
    ("path", "named", "kept"),
    [
        (["", "/usr/lib"], "", False),
        (["{here}", "/usr/lib"], "", False),
        (["{here}", "{here}", "/usr/lib"], "{here}", True),
        (["/bin", "{here}", "/usr/lib"], ":/other", False),
        (["/bin", "/usr/lib", "{here}"], "", True),  # installed from there
    ],
)
def test_where_the_working_folder_stays(tmp_path, monkeypatch, path, named, kept):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", named.format(here=tmp_path))
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    monkeypatch.setattr(sys, "path", [entry.format(here=tmp_path) for entry in path])
    leave_out_working_folder()
    assert "" not in sys.path
    assert (str(tmp_path) in sys.path) == kept
    assert "/usr/lib" in sys.path
