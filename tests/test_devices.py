"""`devices=2` on a CPU: the rows of one process, and nothing is left when the run is killed."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from _runs import SMALL, TINY, about, copy_of, gradbench, kept, one_sentence, reference
from safetensors import safe_open

from gradbench.store import Store


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return reference(tmp_path_factory.getbasetemp())


@pytest.mark.slow
def test_a_run_on_two_devices_has_the_rows_and_products_of_one(finished, tmp_path):
    folders = [copy_of(finished, tmp_path / name) for name in ("one", "two")]
    for count, here in enumerate(folders, start=1):
        ran = gradbench("run", *TINY, "levels=[2]", f"devices={count}", cwd=here)
        assert ran.code == 0, ran.err
        assert about(here)["config"]["devices"] == count
    one, two = ((here / "run/results.csv").read_bytes() for here in folders)
    assert one == two
    assert kept(folders[0]) == kept(folders[1]) > kept(finished)


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("devices=0", "devices=0: write a whole number, at least 1"),
        ("devices=two", "devices=two: write a whole number, at least 1"),
        ("devices=100", "devices=100: a batch of training.batch=64 images cannot be shared out"),
        ("device=cuda", "device=cuda:0 is not here"),
    ],
)
def test_devices_that_cannot_be_are_one_sentence(tmp_path, word, told):
    words = (*SMALL, "device=cpu", word, *(["devices=2"] if word == "device=cuda" else []))
    assert told in one_sentence(gradbench("run", *words, cwd=tmp_path))


def stat(number: int | str) -> list[str]:
    """Return state and parent of a process, `Z` for one that has ended."""
    with suppress(OSError):
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[:2]
    return ["Z", "0"]


def children(of: int) -> list[str]:
    everyone = [path.name for path in Path("/proc").glob("[0-9]*")]
    return [number for number in everyone if stat(number)[1] == str(of)]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc to find workers")
def test_workers_end_with_a_killed_run_and_its_checkpoint_is_whole(tmp_path):
    command = [sys.executable, "-c", "from gradbench.cli import main; main()", "run", *SMALL]
    root = Path(__file__).parents[1]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    with subprocess.Popen(
        [*command, "training.epochs=400", "devices=2"], cwd=tmp_path, env=env,
        stderr=subprocess.DEVNULL,
    ) as run:  # fmt: skip
        until = time.monotonic() + 240
        while not list(tmp_path.glob("store/network/*.scratch/training.safetensors")):
            assert run.poll() is None
            assert time.monotonic() < until
            time.sleep(0.02)
        workers = children(run.pid)
        run.kill()
    assert run.returncode == -signal.SIGKILL
    assert len(workers) >= 2  # and the tracker of what multiprocessing shares
    while any(stat(number)[0] != "Z" for number in workers):
        assert time.monotonic() < until
        time.sleep(0.02)
    assert not list(Store(tmp_path / "store").products())
    (kept_epoch,) = tmp_path.glob("store/network/*.scratch/training.safetensors")
    with safe_open(str(kept_epoch), framework="pt") as stream:
        assert int(stream.metadata()["epoch"]) >= 1
