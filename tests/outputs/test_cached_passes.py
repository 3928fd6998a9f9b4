"""Further passes: each image once, kept by shard, drawn alike on both sides."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from _dummies import images, network

from gradbench.outputs.cached_passes import VERSION, CachedPasses
from gradbench.outputs.perturbed import PerturbedPass
from gradbench.store import Store


@dataclass(frozen=True)
class Scaled:
    """L = factor * sum of values."""

    factor: float = 1.0

    def gradient(self, values):
        return torch.full_like(values, self.factor)

    def settings(self):
        return {"sum": self.factor}


@pytest.fixture(scope="module")
def f():
    return network()


@pytest.fixture
def asked(monkeypatch):
    """List how many images every computed pass looked at."""
    sizes = []
    call = PerturbedPass.__call__

    def counted(self, backbone, batch):
        sizes.append(len(batch))
        return call(self, backbone, batch)

    monkeypatch.setattr(PerturbedPass, "__call__", counted)
    return sizes


WHAT = PerturbedPass("logits", Scaled(), (0.01, 0.1))


def test_results_are_those_of_the_pass_in_the_order_of_the_rows(store, f):
    data = images(1030)
    rows = np.array([3, 1002, 1001, 77])
    found = CachedPasses(f, "w", data, store)(WHAT, rows)
    pixels = torch.from_numpy(data.images[rows]).float() / 255
    torch.testing.assert_close(found, WHAT(f, pixels), rtol=1e-5, atol=1e-5)


def test_no_image_has_the_same_pass_twice(store, f, asked):
    again = CachedPasses(f, "w", images(100), store)
    first = again(WHAT, np.arange(40))
    assert asked == [40]
    second = again(WHAT, np.arange(30, 50))
    assert asked == [40, 10]
    assert torch.equal(second[:10], first[30:])
    one = again(replace(WHAT, magnitudes=(0.1,)), np.arange(50))  # a magnitude known already
    assert asked == [40, 10]
    assert torch.equal(one[:40, 0], first[:, 1])
    again(replace(WHAT, loss=Scaled(2.0)), np.arange(5))
    again(replace(WHAT, magnitudes=(0.2,)), np.arange(5))
    assert asked == [40, 10, 5, 5]


def test_a_repeated_run_computes_nothing(store, f, asked):
    rows = (np.arange(0, 1100, 3), np.arange(0, 1100, 5))

    def run(at):
        again = CachedPasses(f, "w", images(1100), at)
        return [again(WHAT, part) for part in rows]

    first = run(store)
    done = len(asked)
    other = Store(store.root)
    assert all(torch.equal(a, b) for a, b in zip(run(other), first))
    assert len(asked) == done
    assert other.made == []


def test_a_killed_run_goes_on_where_it_was(store, f, asked, monkeypatch):
    data = images(2010)
    rows = np.arange(0, 2010, 10)

    def killed(self, backbone, batch):
        raise KeyboardInterrupt

    CachedPasses(f, "w", data, store)(WHAT, rows[:100])  # the first shard
    whole = PerturbedPass.__call__
    monkeypatch.setattr(PerturbedPass, "__call__", killed)
    with pytest.raises(KeyboardInterrupt):
        CachedPasses(f, "w", data, Store(store.root))(WHAT, rows)
    monkeypatch.setattr(PerturbedPass, "__call__", whole)
    asked.clear()
    CachedPasses(f, "w", data, Store(store.root))(WHAT, rows)
    assert sum(asked) == 101


def test_keys_are_of_content(store, f):
    def keys(weights="w", seed=0, what=WHAT, rows=(1, 2), name="toy"):
        own = Store(store.root)
        data = images(20, seed=seed, name=name)
        CachedPasses(f, weights, data, own)(what, np.array(rows))
        return set(own.used)

    first = keys()
    assert keys(name="elsewhere") == first
    for other in (
        keys(weights="v"),
        keys(seed=1),
        keys(rows=(1, 3)),
        keys(what=replace(WHAT, loss=Scaled(2.0))),
        keys(what=replace(WHAT, source="layer_means/stage1")),
        keys(what=replace(WHAT, magnitudes=(0.01,))),
    ):
        assert not other & first


def test_the_order_is_random_and_keeps_groups_and_twins_together(store, f):
    data = images(300)
    groups = np.array([f"track {i // 3}" for i in range(300)])
    data = replace(data, groups=groups)
    order = CachedPasses(f, "w", data, store).order
    assert sorted(order) == list(range(300))
    assert np.corrcoef(order, np.arange(300))[0, 1] < 0.3
    by_place = groups[np.argsort(order)]
    assert (by_place[0::3] == by_place[1::3]).all()
    assert (by_place[0::3] == by_place[2::3]).all()
    twins = data.select(np.random.default_rng(0).permutation(300))
    first = CachedPasses(f, "w", twins, store).order < 60
    assert set(twins.groups[first]) == set(groups[order < 60])
    assert not np.array_equal(CachedPasses(f, "w", data, store, seed=1).order, order)


def test_passes_use_the_threads_that_there_were_at_first(store, f, monkeypatch):
    before, seen = torch.get_num_threads(), []
    call = PerturbedPass.__call__
    monkeypatch.setattr(
        PerturbedPass,
        "__call__",
        lambda *a: seen.append(torch.get_num_threads()) or call(*a),
    )
    try:
        torch.set_num_threads(2)
        again = CachedPasses(f, "w", images(10), store)
        torch.set_num_threads(1)
        again(WHAT, np.arange(4))
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
    assert seen == [2]


def test_golden_passes(store, f):
    # if this fails, raise again.VERSION
    assert VERSION == 1
    found = CachedPasses(f, "w", images(6), store)(WHAT, np.array([1]))
    expected = np.array([[0.0883, 0.3692, -0.3349], [0.0827, 0.3435, -0.3457]])
    np.testing.assert_allclose(found[0], expected, atol=6e-5)
