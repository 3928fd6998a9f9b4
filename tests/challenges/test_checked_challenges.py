"""What a challenge of one's own may declare and hand back, and that it cannot touch the others."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from _dummies import images, network

from gradbench.challenges.base import Challenge, Derived, External
from gradbench.challenges.checked import UnusableChallenge, checked_challenge, find
from gradbench.challenges.corruptions.noise import GaussianNoise
from gradbench.challenges.counter import image_keys, normal
from gradbench.challenges.produce import ChallengeSetup, produce
from gradbench.data.imageset import ImageSet, LazyImages, source_ids
from gradbench.errors import Faulty

CLEAN = images(60)


class Inverted(Derived):
    kind, family, strengths = "corruption", "mine", (1.0,)

    def perturb(self, clean, strength, seed, network=None):
        self.f = network
        return self.turn(clean)

    def turn(self, clean):
        return 255 - clean.grey


def make(turn, store, f=None, **about):
    kind = type("Mine", (Inverted,), {"turn": turn, "uses_network": f is not None, **about})
    return produce(
        ChallengeSetup(kind(), "mine", 1.0, network=f, weights="w" * bool(f)), CLEAN, store
    )[0]


@pytest.mark.parametrize(
    ("turn", "text"),
    [
        (lambda s, c: None, "gives NoneType: a tensor of grey levels is due"),
        (lambda s, c: c.grey[:-1], r"images of shape \(59, 1, 8, 8\): \(60, 1, 8, 8\) is due"),
        (lambda s, c: c.grey / 0, "NaN or infinite"),
        (lambda s, c: c.grey / 255, "up to 0.7.*: 0 to 255 are due, not 0 to 1"),
        (lambda s, c: c.grey + 200, r"from 200 to .*: 0 to 255 are due, \.clamp\(0, 255\)"),
        (lambda s, c: c.grey.flip(0), "another image of the same one when it is given with others"),
        (lambda s, c: c.grey.mean(0, keepdim=True).expand_as(c.grey), "given with others"),
        (lambda s, c: 255 * torch.rand_like(c.grey), "the second time: random numbers"),
        (lambda s, c: torch.from_numpy(np.random.rand(*c.grey.shape)) * 255, "the second time"),
        (
            lambda s, c: torch.manual_seed(0) and 255 * torch.rand(c.grey.shape),
            "given with others",
        ),
        (lambda s, c: c.grey.mul_(0.5), r"changes the clean images in place \(clean.grey\)"),
        (lambda s, c: c.labels.zero_() and c.grey, "in place|raises RuntimeError"),
        (lambda s, c: c.nothing, r"raises AttributeError .*test_checked_\w+\.py, line"),
    ],
)
def test_images_that_are_none(turn, text, store):
    with pytest.raises(Faulty, match=text) as caught:
        make(turn, store)
    assert str(caught.value).startswith("challenge mine: Mine.perturb ")
    assert not list(store.products())
    assert np.array_equal(CLEAN.images, images(60).images)


@pytest.mark.parametrize(
    "turn",
    [
        lambda s, c: 255 - c.grey,
        lambda s, c: (255 - c.grey).numpy(),
        lambda s, c: (255 - c.grey).double().requires_grad_() * 1.00001,
        lambda s, c: torch.zeros_like(c.grey),
        lambda s, c: (
            c.grey + 9 * normal(image_keys(0, "mine", c.sources), c.grey.shape[1:])
        ).clamp(0, 255),
    ],
)
def test_good_images_are_taken(turn, store):
    made = make(turn, store)
    assert made.images[0:60].dtype == np.uint8
    assert len(make(turn, store).digests) == 1


def test_a_network_is_left_as_it_came(store):
    f = network()
    before = {n: t.clone() for n, t in f.state_dict().items()}
    modes = [m.training for m in f.modules()]

    def trains(self, clean):
        for parameter in self.f.train().network.parameters():
            parameter.requires_grad_(False).data.mul_(2)
        return clean.grey

    with pytest.raises(Faulty, match=r"Mine.perturb changes the network \(.*weight\)"):
        make(trains, store, f)
    assert all(torch.equal(before[n], t) for n, t in f.state_dict().items())
    assert [m.training for m in f.modules()] == modes
    assert all(p.requires_grad for p in f.parameters())

    def looks(self, clean):
        self.f.requires_grad_(False).network.register_forward_hook(lambda *_: 1 / 0)
        logits = f(clean.grey / 255)
        return (clean.grey + logits.argmax(1).view(-1, 1, 1, 1)).clamp(0, 255)

    make(looks, store, f)
    assert all(p.requires_grad for p in f.parameters())
    f(torch.rand(1, 1, 8, 8))


def test_settings_that_the_class_forgets_stand_in_its_keys():
    def key(amount):
        challenge = checked_challenge(
            "mine", Inverted(), {"_target_": "mine.Inverted", "amount": amount}
        )
        return ChallengeSetup(challenge, "mine", 1.0).keys(CLEAN)[0].digest

    assert key(1) != key(2)
    assert key(1) == key(1)
    assert "code" in ChallengeSetup(Inverted(), "mine", 1.0).keys(CLEAN)[0].config
    assert "code" not in ChallengeSetup(GaussianNoise(), "noise", 0.1).keys(CLEAN)[0].config


@pytest.mark.parametrize(
    ("about", "text"),
    [
        ({"kind": None}, "no kind of challenge named 'None': valid choices are adversarial"),
        ({"kind": "corruptions"}, "did you mean corruption"),
        ({"family": None}, "Mine.family is missing"),
        ({"to_pixels": lambda self, grey, clean: None}, "Mine.to_pixels is gradbench's"),
        ({"strengths": ()}, r"Mine.strengths is \(\)"),
        ({"strengths": 0.5}, "Mine.strengths is 0.5"),
        ({"strengths": ("strong",)}, "Mine.strengths is"),
        ({"levels": 5}, "Mine.levels is 5"),
        ({"settings": lambda self: {"a": object()}}, "raises TypeError"),
        ({"levels": property(lambda self: self.nothing)}, "raises AttributeError"),
    ],
)
def test_declarations(about, text):
    found = checked_challenge("mine", type("Mine", (Inverted,), about)(), {})
    assert isinstance(found, UnusableChallenge)
    assert found.kind == "corruption"
    assert found.levels == ()
    with pytest.raises(Faulty, match=text):
        find(found, None)


def test_what_is_no_challenge():
    class Bare(Challenge):
        kind = "adversarial"

    found = checked_challenge("mine", Bare(), {})
    assert found.kind == "adversarial"
    assert "is derived neither from Derived nor from External" in found.reason
    mine = Inverted()
    assert checked_challenge("mine", mine, {}) is mine


def drawn(pixels=None, count=20, **changes) -> ImageSet:
    pixels = np.full((count, 1, 8, 8), 7, np.uint8) if pixels is None else pixels
    about = {"labels": np.zeros(count, np.int64), "sources": source_ids("mine", "drawn", count)}
    return ImageSet("mine", "drawn", pixels, **about | changes)


FLOATS = np.linspace(0, 1, 20 * 64, dtype=np.float32).reshape(20, 1, 8, 8)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (lambda: None, "gives NoneType: an ImageSet is due"),
        (lambda: drawn(np.zeros((20, 1, 9, 9), np.uint8)), "the in-distribution shape .* is due"),
        (lambda: drawn(np.zeros((0, 1, 8, 8), np.uint8), 0), r"uint8 \(0, 1, 8, 8\)"),
        (lambda: drawn(FLOATS.astype(np.float64)), "images of float64: uint8 or float32 is due"),
        (lambda: drawn(255 * FLOATS), r"pixels from 0 to 255: floats are due in \[0, 1\]"),
        (lambda: drawn(FLOATS / 0), "pixels from"),
        (lambda: drawn(sources=np.arange(20)), "sources as int64"),
        (
            lambda: drawn(LazyImages(lambda r: np.random.rand(len(r), 1, 8, 8).astype("f4"),
                                     (20, 1, 8, 8), dtype="float32")),
            "other pixels the second time",
        ),
        (
            lambda: drawn(LazyImages(lambda r: np.zeros((9, 1, 8, 8), np.uint8), (20, 1, 8, 8))),
            r"read as uint8 \(9, 1, 8, 8\)",
        ),
        (lambda: drawn(LazyImages(lambda r: 1 / 0, (20, 1, 8, 8))), "reading images raises Zero"),
    ],
)  # fmt: skip
def test_found_images_that_are_none(given, text):
    with np.errstate(all="ignore"), pytest.raises(Faulty, match=text) as caught:
        find(type("Mine", (Found,), {"give": lambda self, asked: given()})(), asked())
    assert str(caught.value).startswith("challenge mine: Mine.find")


class Found(External):
    kind = "ood"

    def find(self, asked):
        return self.give(asked)

    def give(self, asked):
        return drawn()


def asked():
    from gradbench.challenges.base import ImageRequest

    return ImageRequest("mine", None, CLEAN, SimpleNamespace(name="toy"), None, 0)


def test_found_images_are_known_by_their_content_and_clean_ones_cannot_be_changed():
    lazy = LazyImages(lambda rows: np.full((len(rows), 1, 8, 8), 9, np.uint8), (20, 1, 8, 8), ["x"])
    claimed = type("Mine", (Found,), {"give": lambda self, asked: drawn(lazy)})()
    found = find(claimed, asked())
    assert found.digests != ["x"]
    assert found.fingerprint == find(claimed, asked()).fingerprint

    def drawn_at_random(self, asked):
        return drawn(np.random.randint(0, 256, (20, 1, 8, 8), dtype=np.uint8))

    draws = type("Mine", (Found,), {"give": drawn_at_random})()
    np.random.rand()
    first = find(draws, asked()).fingerprint
    np.random.rand()
    assert find(draws, asked()).fingerprint == first

    def change(self, asked):
        asked.clean.images[:] = 0

    with pytest.raises(Faulty, match="read-only"):
        find(type("Mine", (Found,), {"give": change})(), asked())
    assert CLEAN.images.any()
