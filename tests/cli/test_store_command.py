"""`gradbench store ls|verify|prune`."""

import os
import time
from contextlib import ExitStack

import pytest
from _runs import SMALL, about, copy_of, gradbench, kept, one_sentence, reference, steps

from gradbench.support.locks import file_lock


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return reference(tmp_path_factory.getbasetemp())


@pytest.fixture
def here(finished, tmp_path):
    return copy_of(finished, tmp_path)


def store(here, *words):
    return gradbench("store", *words, "store=store", cwd=here)


def hurt(here):
    """Damage the network of a run; return its folder, relative to the run's."""
    path = next((here / "store/network").glob("*/network.safetensors"))
    path.write_bytes(path.read_bytes()[:-8])
    return path.parent.relative_to(here)


def test_ls_counts_products_by_step(here):
    ran = store(here, "ls")
    assert ran.code == 0
    counts = {line.split()[0]: int(line.split()[1]) for line in ran.out.splitlines()}
    assert counts == steps(kept(here))
    (here / "store/network/0000.part").mkdir()
    assert "unfinished: store/network/0000.part" in store(here, "ls").out


def test_verify(here):
    total = len(kept(here))
    ran = store(here, "verify")
    assert (ran.code, ran.out) == (0, f"{total} products, 0 damaged\n")
    product = hurt(here)
    ran = store(here, "verify")
    assert f"{product}: network.safetensors has " in ran.out
    assert ran.code == 1
    assert ran.err.startswith(f"gradbench: 1 of {total} products are damaged")


def test_prune_removes_what_is_damaged_and_nothing_else(here):
    before = kept(here)
    product = hurt(here)
    ran = store(here, "prune")
    assert ran.out.startswith("removed 1 folders, ")
    assert before - kept(here) == {("network", product.name)}
    assert store(here, "prune").out.startswith("removed 0 folders")
    assert gradbench("run", *SMALL, cwd=here).code == 0
    assert about(here)["time"]["products_made"] == 1


def test_prune_leaves_what_another_process_may_be_at(here):
    for name, age in (("a.part", 60), ("b.part", 7200), ("c.scratch", 86400), ("d.scratch", 1e6)):
        folder = here / "store/network" / name
        folder.mkdir()
        os.utime(folder, (time.time() - age,) * 2)
    store(here, "prune")
    left = {p.name for p in (here / "store/network").iterdir() if p.suffix}
    assert left == {"a.part", "c.scratch"}


def test_prune_leaves_what_is_locked(here):
    network = next((here / "store/network").iterdir())
    part = network.with_name(f"{'0' * 40}.part")  # made when a long training began
    part.mkdir()
    os.utime(part, (1e9, 1e9))
    with ExitStack() as stack:
        for name in ("0" * 40, network.name):
            lock = here / f"store/locks/network-{name}.lock"
            stack.enter_context(file_lock(lock, "trains"))
        assert "left 2 that another process is making" in store(here, "prune", "days=0").out
        assert part.is_dir()
        assert network.is_dir()
    store(here, "prune")
    assert not part.exists()
    assert network.is_dir()


def test_prune_by_age(here):
    old = sorted((here / "store/scores").iterdir())[:2]
    for folder in old:
        os.utime(folder / "product.json", (1e9, 1e9))
    before = kept(here)
    store(here, "prune", "days=100")
    assert before - kept(here) == {("scores", folder.name) for folder in old}
    store(here, "prune", "days=0")
    assert kept(here) == set()


def test_the_store_of_the_environment(here, monkeypatch):
    monkeypatch.setenv("GRADBENCH_STORE", str(here / "store"))
    assert f"{len(kept(here))} products, 0 damaged" in gradbench("store", "verify").out


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("lss",), "did you mean ls"),
        (("ls", "stroe=x"), "did you mean store"),
        (("ls", "store=nowhere"), "no store at nowhere"),
        (("prune", "store=store", "days=-1"), "days=-1: write a number of days"),
        (("prune", "store=store", "days=old"), "days=old: write a number of days"),
    ],
)
def test_what_is_refused(here, words, text):
    before = kept(here)
    assert text in one_sentence(gradbench("store", *words, cwd=here))
    assert kept(here) == before
