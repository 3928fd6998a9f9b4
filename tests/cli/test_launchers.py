"""Sweeps by launchers that run two jobs at once on one store: the rows of the serial sweep."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from _runs import SMALL, TINY, gradbench, kept, one_sentence
from joblib.externals.loky.process_executor import TerminatedWorkerError

from gradbench.cli import composing
from gradbench.cli.sweep_command import _launcher_faults
from gradbench.config import group_files, load_member
from gradbench.errors import GradbenchError

LAUNCHERS = {
    "joblib": ("launcher=joblib", "hydra.launcher.n_jobs=2"),
    "submitit_local": ("launcher=submitit_local",),
}


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """Two jobs, with a network of the user's in the place of a built-in one."""
    mine = tmp_path_factory.mktemp("mine")
    content = load_member("backbone", "small_cnn") | {"width": 8}
    (mine / "backbone").mkdir()
    (mine / "backbone/small_cnn.yaml").write_text(yaml.dump(content))
    return ("sweep", "--config-dir", str(mine), *TINY, "level=1,3", "out=jobs")


@pytest.fixture(scope="module")
def serial(words, tmp_path_factory):
    """Return a folder in which the two jobs were done one after the other, training included."""
    here = tmp_path_factory.mktemp("serial")
    ran = gradbench(*words, cwd=here)
    assert ran.code == 0, ran.err
    return here


def in_processes(command, cwd: Path) -> subprocess.CompletedProcess:
    """Run the command as a user does: launchers start processes that must find everything."""
    command = [sys.executable, "-c", "from gradbench.cli import main; main()", *command]
    root = Path(__file__).parents[2]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root), "MPLBACKEND": "agg"}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=1200)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_two_workers_on_one_store_write_the_rows_of_a_serial_sweep(
    words, serial, tmp_path, launcher
):
    ran = in_processes([*words, *LAUNCHERS[launcher]], tmp_path)
    assert ran.returncode == 0, ran.stderr
    merged = (tmp_path / "jobs/results.csv").read_bytes()
    assert merged == (serial / "jobs/results.csv").read_bytes()
    assert kept(tmp_path) == kept(serial)
    # both jobs want the network and the clean outputs: each product was made by one of them
    runs = [json.loads(p.read_text()) for p in tmp_path.glob("jobs/level=*/run.json")]
    assert [run["config"]["backbone"]["width"] for run in runs] == [8, 8]
    assert sum(run["time"]["products_made"] for run in runs) == len(kept(serial))
    # a job's command is that of a run of its own, whatever process it ran in
    commands = [run["about"]["command"].split() for run in runs]
    assert {command[1] for command in commands} == {"run"}
    levels = sorted(w for command in commands for w in command if w.startswith("level="))
    assert levels == ["level=1", "level=3"]
    assert not any("launcher" in w or "submitit" in w for command in commands for w in command)


def test_a_worker_that_dies_is_one_sentence(tmp_path):
    sentence = (
        r"^a worker of the sweep died, or joblib failed \(TerminatedWorkerError: killed\): "
        "jobs and products that were finished are kept, and the same command does what is missing$"
    )
    with pytest.raises(GradbenchError, match=sentence), _launcher_faults(tmp_path):
        raise TerminatedWorkerError("killed")


def test_a_launcher_that_cannot_start_is_one_sentence_and_other_faults_are_not_hidden(tmp_path):
    start = compile("raise Exception('no raylet\\nmore')", "node.py", "exec")
    told = r"^a worker of the sweep died, or ray failed \(Exception: no raylet\): jobs and products"
    with pytest.raises(GradbenchError, match=told), _launcher_faults(tmp_path):
        exec(start, {"__name__": "ray._private.node"})
    with pytest.raises(ZeroDivisionError), _launcher_faults(tmp_path):
        1 / 0  # noqa: B018


# the launchers' files


def test_every_launcher_is_chosen_by_one_key():
    assert set(group_files("launcher")) == {"joblib", "slurm", "submitit_local", "ray"}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("launcher=ray",), "launcher ray needs hydra-ray-launcher: pip install 'gradbench[ray]'"),
        (("launcher=jobib",), "no launcher named 'jobib': did you mean joblib?"),
        (("hydra/launcher=jobib",), "no launcher named 'jobib': did you mean joblib?"),
    ],
)
def test_a_launcher_that_is_not_there_is_one_sentence(tmp_path, words, told):
    assert one_sentence(gradbench("sweep", *SMALL, "level=1,3", *words, cwd=tmp_path)).startswith(
        told
    )
    assert not list(tmp_path.iterdir())


def test_each_launcher_names_the_extra_of_pyproject():
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    extras = tomllib.loads(text)["project"]["optional-dependencies"]
    for name, (package, extra) in composing.LAUNCHERS.items():
        assert any(one.startswith(package) for one in extras[extra])
        assert f"pip install 'gradbench[{extra}]'" in str(composing.missing_launcher(name))


def test_a_run_takes_no_launcher(tmp_path):
    text = one_sentence(gradbench("run", *SMALL, "launcher=joblib", cwd=tmp_path))
    assert text == "launcher=joblib: a launcher carries out the jobs of `gradbench sweep`"
