"""What is there is not made again, and a run that was killed ends in the same bytes."""

import multiprocessing
import os
import shutil
import signal
from functools import cache
from pathlib import Path
from unittest.mock import patch

import pytest
from _runs import SMALL, about, copy_of, gradbench, kept, same_results, steps

from gradbench.store import MANIFEST, Store, find_damage

WORDS = (
    *(word for word in SMALL if not word.startswith(("challenges", "limit"))),
    *("challenges=[gaussian_noise,fgsm]", "limit=100"),
    *("controls.memorisation=false", "controls.random_labels=false"),
)
"""Images made again and images kept, detectors fitted once and in every fold, controls."""


@cache
def processes():
    """Return a maker of processes that have the heavy libraries loaded, and no threads yet."""
    os.environ["OMP_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["gradbench.run.run", "gradbench.report.run_folder"])
    return context


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    assert gradbench("run", *WORDS, cwd=folder).code == 0
    return folder


def added(finished, place: Path, *words: str) -> dict[str, int]:
    """Run with changed settings on a copy of the finished run; return what was made, by step."""
    here = copy_of(finished, place)
    (here / "run").rename(here / "before")  # what differs in more than its lists has its own folder
    ran = gradbench("run", *WORDS, *words, cwd=here)
    assert ran.code == 0, ran.err
    made = kept(here) - kept(finished)
    assert about(here)["time"]["products_made"] == len(made)
    return steps(made)


def test_one_more_level_computes_only_that(finished, tmp_path):
    # scores of msp, of gradient_logistic, and of the latter with a random split
    assert added(finished, tmp_path, "levels=[3,5]") == {
        "challenge": 1,
        "measures": 3,
        "outputs": 2,
        "resamples": 2,
        "scores": 3,
    }


def test_one_more_detector_on_the_same_outputs_computes_only_its_scores(finished, tmp_path):
    # two challenges, identity, two random splits
    words = "detectors=[msp,gradient_logistic,{use: gradient_logistic,name: second,grid: [0.5]}]"
    made = added(finished, tmp_path, words)
    assert made["scores"] == 5
    # equal scores have one measure
    assert set(made) == {"measures", "resamples", "scores"}


def test_one_more_challenge_computes_only_that(finished, tmp_path):
    word = "challenges=[gaussian_noise,fgsm,{use: fgsm,name: strong,epsilon: 0.2}]"
    # the identity control is the same for both: at strength zero epsilon is gone
    assert added(finished, tmp_path, word) == {
        "challenge": 1,
        "measures": 3,
        "outputs": 2,
        "resamples": 2,
        "scores": 3,
    }


def test_fewer_challenges_compute_nothing(finished, tmp_path):
    assert added(finished, tmp_path, "challenges=[fgsm]") == {}


def test_another_split_seed_fits_and_measures_again(finished, tmp_path):
    made = added(finished, tmp_path, "evaluation.seed=1")
    assert set(made) == {"measures", "resamples", "scores"}


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    else:
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def test_damaged_products_are_made_anew_and_the_results_are_the_same(finished, tmp_path):
    here = copy_of(finished, tmp_path)
    hurt = []
    for step, how in (
        *(("network", "truncated"), ("challenge", "altered"), ("outputs", "truncated")),
        *(("scores", "altered"), ("measures", "truncated")),
    ):
        product = next(
            folder
            for folder, manifest in Store(here / "store").products()
            if folder.parent.name == step and manifest["files"]
        )
        damage(max((p for p in product.iterdir() if p.name != MANIFEST), key=os.path.getsize), how)
        hurt.append(product)
    ran = gradbench("run", *WORDS, cwd=here)
    assert ran.code == 0, ran.err
    for product in hurt:
        told = f"store: {product.parent.name} {product.name[:12]} is damaged ("
        assert ran.err.count(told) == 1
        assert find_damage(product) is None
    assert about(here)["time"]["products_made"] == len(hurt)
    assert same_results(finished, here)


def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)


def after(real, calls: int, half: str = "", where: str = ""):
    """Return a function that works as often as told and then dies.

    Args:
        real: the function itself.
        calls: that it survives.
        half: text that it writes to its file before it dies.
        where: calls count if this stands in their first argument.
    """
    count = 0

    def worker(*args, **kwargs):
        nonlocal count
        count += where in str(args[0])
        if count > calls:
            if half:
                Path(args[1]).write_text(half)
            die()
        return real(*args, **kwargs)

    return worker


MOMENTS = {
    "in the second epoch": ("gradbench.backbones.training._save_progress", 1, ""),
    "with a half-written network": ("gradbench.backbones.checkpoint.save_tensors", 0, "half"),
    "in the middle of a shard": ("gradbench.outputs.extract.save_file", 3, "half"),
    "between two fits": ("gradbench.run.fitting.score_folds", 7, ""),
    "with a product sealed and not renamed": ("gradbench.store.Store._seal", 12, ""),
    "with the rows written and no table": ("gradbench.report.run_tables.write_markdown", 0, ""),
    "in the middle of moving the results": (
        *("gradbench.report.run_folder.os.replace", 5, "", "run/.gradbench-part/"),
    ),
}


def killed(cwd: Path, name: str, *how) -> None:
    """Run the small experiment in a process that dies at a moment."""
    import importlib

    holder, _, attribute = name.rpartition(".")
    try:
        owner = importlib.import_module(holder)
    except ModuleNotFoundError:
        module, _, last = holder.rpartition(".")
        owner = getattr(importlib.import_module(module), last)
    with patch.object(owner, attribute, after(getattr(owner, attribute), *how)):
        gradbench("run", *WORDS, cwd=cwd)


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_run_goes_on_and_ends_in_the_same_bytes(finished, tmp_path, moment):
    if "results" in moment or "rows" in moment:  # long after the last product
        shutil.copytree(finished / "store", tmp_path / "store")
    process = processes().Process(target=killed, args=(tmp_path, *MOMENTS[moment]))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    before = len(kept(tmp_path))
    ran = gradbench("run", *WORDS, cwd=tmp_path)
    assert ran.code == 0, ran.err
    assert same_results(finished, tmp_path)
    assert kept(tmp_path) == kept(finished)
    assert about(tmp_path)["time"]["products_made"] == len(kept(finished)) - before
    assert not Store(tmp_path / "store").leftovers()
    assert {p.name for p in (tmp_path / "run").iterdir()} == {
        *("results.csv", "costs.csv", "costs.md", "table.md", "run.json"),
        *("figures", "model"),
    }
    if moment == "in the second epoch":
        assert "training goes on after epoch 1 of 2" in ran.err


def one_of_two(cwd: Path, barrier) -> None:
    cwd.mkdir()
    barrier.wait(120)
    ran = gradbench("run", *WORDS, "store=../store", cwd=cwd)
    (cwd / "errors").write_text(ran.err)


@pytest.mark.slow
def test_two_processes_share_one_store_and_train_once(finished, tmp_path):
    barrier = processes().Barrier(2)
    folders = [tmp_path / "a", tmp_path / "b"]
    both = [processes().Process(target=one_of_two, args=(f, barrier)) for f in folders]
    for process in both:
        process.start()
    for process in both:
        process.join(120)
    assert [process.exitcode for process in both] == [0, 0]
    told = "".join((folder / "errors").read_text() for folder in folders)
    assert told.count("training: 30 steps") == 1
    assert kept(tmp_path) == kept(finished)
    made = [about(folder)["time"]["products_made"] for folder in folders]
    assert sum(made) == len(kept(finished))
    for folder in folders:
        rows = (folder / "run/results.csv").read_bytes()
        assert rows == (finished / "run/results.csv").read_bytes()
    assert same_results(*folders)


@pytest.mark.slow
def test_the_same_run_twice_at_once_in_one_folder(finished, tmp_path):
    barrier = processes().Barrier(2)
    both = [processes().Process(target=one_folder, args=(tmp_path, barrier)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(120)
    assert [process.exitcode for process in both] == [0, 0]
    assert same_results(finished, tmp_path)
    assert (tmp_path / "run/model/s0/model.json").is_file()


def one_folder(cwd: Path, barrier) -> None:
    barrier.wait(120)
    assert gradbench("run", *WORDS, cwd=cwd).code == 0
