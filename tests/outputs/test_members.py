"""The logits of all networks of a run: those of each, kept once, under the digests of all."""

import pickle

import pytest
import torch
from _dummies import images, network

from gradbench.backbones.backbone import digest
from gradbench.errors import GradbenchError
from gradbench.outputs.catalogue import built_in
from gradbench.outputs.extract import extract, shard_key
from gradbench.outputs.read import read_outputs
from gradbench.store import Store


@pytest.fixture(scope="module")
def networks():
    return [network(seed, width=8) for seed in range(3)]


def bound(networks):
    return built_in().find("members").of_members([(f, digest(f)) for f in networks])


def test_they_are_the_logits_of_every_network(networks):
    pixels = torch.from_numpy(images(20).images).float() / 255
    found = read_outputs(networks[0], pixels, [bound(networks)])["members"]
    assert found.shape == (20, 3, 3)
    for i, f in enumerate(networks):
        assert torch.equal(found[:, i], read_outputs(f, pixels, ["logits"])["logits"])


def test_they_are_kept_once_whichever_network_is_f(networks, tmp_path):
    store, output = Store(tmp_path), bound(networks)
    first, second = (
        extract(f, digest(f), images(20), [output], store)["members"] for f in networks[:2]
    )
    assert torch.equal(first, second)
    assert len(list(store.products())) == 1


def test_keys_name_all_networks_and_their_order(networks):
    outputs = [bound(some) for some in (networks, networks[:2], networks[::-1])]
    keys = {shard_key(output, "f", "images").digest for output in outputs}
    assert len(keys) == 3
    assert outputs[0].identity == {"version": 1, "members": [digest(f) for f in networks]}
    assert shard_key("logits", "f", "images").inputs["weights"] == "f"


def test_they_reach_another_process(networks):
    pixels = torch.from_numpy(images(5).images).float() / 255
    sent = pickle.loads(pickle.dumps(bound(networks)))
    ours, theirs = (read_outputs(networks[0], pixels, [o]) for o in (bound(networks), sent))
    assert torch.equal(ours["members"], theirs["members"])


def test_one_network_is_refused(networks):
    with pytest.raises(GradbenchError, match=r"^members are .*'seeds=\[0,1,2\]'.* or leave out"):
        bound(networks[:1])
    with pytest.raises(GradbenchError, match=r"^members are the logits of all networks"):
        read_outputs(networks[0], torch.zeros(2, 1, 8, 8), ["members"])


def test_in_a_mirror_they_are_those_of_the_mirrored_images(networks):
    pixels = torch.from_numpy(images(20).images).float() / 255
    members = [(f, digest(f)) for f in networks]
    mirrored = built_in().find("mirrored/members").of_members(members)
    found = read_outputs(networks[0], pixels, [mirrored])["mirrored/members"]
    expected = read_outputs(networks[0], pixels.flip(-1), [bound(networks)])["members"]
    assert torch.equal(found, expected)
    assert mirrored.weights == bound(networks).weights
