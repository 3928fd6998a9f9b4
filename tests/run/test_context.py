"""How a run takes the images of the published archives, and how well f names clean ones."""

from types import SimpleNamespace

import pytest
import torch
from _dummies import images, network

from gradbench.backbones.trained_network import TrainedNetwork
from gradbench.data import imageset
from gradbench.data.in_distribution import InDistribution
from gradbench.data.roles import stratified_subset
from gradbench.outputs import extract
from gradbench.outputs.catalogue import built_in
from gradbench.protocols.base import Grouped
from gradbench.protocols.presets import Access2023, Icip2020
from gradbench.run import challenge_images
from gradbench.run.context import NetworkContext
from gradbench.store import Store


@pytest.mark.parametrize("kind", [Grouped, Icip2020, Access2023])
@pytest.mark.parametrize("split", ["grouped", "random"])
def test_a_random_split_of_any_protocol_needs_no_twins(kind, split, monkeypatch):
    monkeypatch.setattr(challenge_images, "archive_of", lambda *_: "archive")
    monkeypatch.setattr(challenge_images, "published_images", lambda *given: given)
    cell = SimpleNamespace(challenge=None, level=1, title="fog 1")
    data, dataset = SimpleNamespace(root=None), SimpleNamespace(name="cifar10")
    experiment = SimpleNamespace(
        protocol=kind(split=split), data=data, dataset=dataset, config=None
    )
    given = challenge_images.published(experiment, cell, "images", None)
    assert given[given.index("images") + 1] is (split == "grouped")


class Stopped(Exception):
    pass


def world(store, limit=None, reads=("logits",)):
    data = images(150, seed=3)
    roles = InDistribution(data, data, data, stratified_subset(data, limit))
    return NetworkContext(
        SimpleNamespace(reads=list(reads), outputs=built_in()),
        roles,
        TrainedNetwork(network(), "w", "f.pt", 0, {}),
        0,
        store,
    )


def test_accuracy_is_of_the_images_that_are_measured(store):
    f, data = network(), images(150, seed=3)
    with torch.inference_mode():
        right = f(torch.from_numpy(data.images) / 255).argmax(1).numpy() == data.labels
    assert 0 < right.mean() < 1
    assert world(store).accuracy == right.mean()
    few = stratified_subset(data, 30)
    chosen = [place in few.sources for place in data.sources]
    assert world(store, limit=30).accuracy == right[chosen].mean()


def test_accuracy_is_kept_by_shards_with_what_detectors_read(store, monkeypatch):
    monkeypatch.setattr(imageset, "SHARD", 50)
    whole = world(Store(store.root / "whole")).accuracy
    compute, asked = extract.compute_outputs, []

    def killed(*args, **more):
        asked.append(args[2].start)
        if len(asked) == 3:
            raise Stopped
        return compute(*args, **more)

    monkeypatch.setattr(extract, "compute_outputs", killed)
    reads = ("squared_norms/ones/bce", "logits")
    with pytest.raises(Stopped):
        _ = world(store, reads=reads).accuracy
    assert world(store, reads=reads).accuracy == whole
    assert asked == [0, 50, 100, 100]
    # the detectors' pass was the same one
    assert "squared_norms/ones/bce" in world(store, reads=reads).normal.outputs
    assert asked == [0, 50, 100, 100]
