"""Outputs read by two processes are those of one, bit for bit, and one process writes them."""

import pytest
import torch
from _dummies import images, network
from test_cached_passes import WHAT

from gradbench.backbones.backbone import digest
from gradbench.data.imageset import LazyImages
from gradbench.outputs import extract as module
from gradbench.outputs import perturbed
from gradbench.outputs.cached_passes import CachedPasses
from gradbench.outputs.distributed import DistributedReader
from gradbench.outputs.extract import extract
from gradbench.store import Store

NAMES = ["logits", "features", "layer_means", "squared_norms/ones/bce"]


@pytest.fixture(scope="module")
def f():
    return network()


def refuse(*_):
    raise AssertionError("this process is to compute nothing")


def files(store: Store) -> dict[str, bytes]:
    return {
        path.relative_to(store.root).as_posix(): path.read_bytes()
        for path in store.root.rglob("*.safetensors")
    }


# 1,070 images are two shards; the second has two passes, the last of 6 images
@pytest.mark.parametrize("count", [pytest.param(1070, marks=pytest.mark.slow), 30])
def test_outputs_and_products_are_those_of_one_process(pool, f, tmp_path, monkeypatch, count):
    data, one, two = images(count), Store(tmp_path / "one"), Store(tmp_path / "two")
    alone = extract(f, digest(f), data, NAMES, one)
    monkeypatch.setattr(module, "compute_outputs", refuse)
    found = extract(f, digest(f), data, NAMES, two, reader=DistributedReader(pool, f, digest(f)))
    assert list(found) == list(alone)
    assert all(torch.equal(found[name], alone[name]) for name in alone)
    assert files(one) == files(two)
    assert len(two.made) == len(files(two)) > 0


def test_another_network_takes_the_place_of_the_first(pool, f, store):
    other = network(seed=1)
    for net in (f, other, f):
        found = DistributedReader(pool, net, digest(net)).compute(
            images(70), slice(0, 70), ["logits"]
        )
        again = module.compute_outputs(net, images(70), slice(0, 70), ["logits"])
        assert torch.equal(found.values["logits"], again.values["logits"])


def test_images_that_are_read_when_asked_for(pool, f):
    data = images(70)
    lazy = type(data)("lazy", "", LazyImages(data.images.__getitem__, data.images.shape),
                      data.labels, data.sources)  # fmt: skip
    found = DistributedReader(pool, f, digest(f)).compute(lazy, slice(3, 70), ["logits"])
    again = module.compute_outputs(f, data, slice(3, 70), ["logits"])
    assert torch.equal(found.values["logits"], again.values["logits"])


def test_perturbed_passes_are_those_of_one_process(pool, f, tmp_path, monkeypatch):
    data, rows = images(150), torch.arange(3, 150).numpy()
    one, two = Store(tmp_path / "one"), Store(tmp_path / "two")
    alone = CachedPasses(f, digest(f), data, one)(WHAT, rows)
    monkeypatch.setattr(perturbed, "in_chunks", refuse)
    found = CachedPasses(f, digest(f), data, two, reader=DistributedReader(pool, f, digest(f)))(
        WHAT, rows
    )
    assert torch.equal(found, alone)
    assert files(one) == files(two)
