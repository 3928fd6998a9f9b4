"""What a detector of one's own may declare and hand back, and that it cannot touch the others."""

from types import MappingProxyType

import numpy as np
import pytest
import torch

from gradbench.errors import Faulty
from gradbench.methods.base import Detector, Info, Samples
from gradbench.methods.checked import check_declared, check_state, checked
from gradbench.methods.msp import MSP


class Energy(Detector):
    info = Info("A title of a paper", "Venue 2020", "https://example.org")
    supervision = "none"
    reads = ("logits",)

    def score(self, outputs):
        return self.turn(-outputs["logits"].double().logsumexp(1))

    def turn(self, scores):
        return scores


def energy(**methods) -> Detector:
    """Return a detector with some methods or declarations of its own."""
    return checked("mine", type("Mine", (Energy,), methods)())


def logits(count=40, seed=0):
    return {"logits": torch.randn(count, 5, generator=torch.Generator().manual_seed(seed))}


@pytest.mark.parametrize(
    ("turn", "text"),
    [
        (lambda s, e: e[:, None], r"scores of shape \(40, 1\) for 40 images: \(40,\) is due"),
        (lambda s, e: e[:-1], r"scores of shape \(39,\) for 40 images"),
        (lambda s, e: e[:, None].squeeze(), r"scores of shape \(\) for 1 images"),
        (lambda s, e: None, r"gives None: a tensor \(40,\) is due"),
        (lambda s, e: e.tolist(), r"a tensor \(40,\) is due"),
        (lambda s, e: e.numpy().astype(str), "gives an array of <U"),
        (lambda s, e: e.to(torch.complex64), "of torch.complex64"),
        (lambda s, e: e / (e < e.max()), "gives 1 of 40 images a score that is not finite"),
        (lambda s, e: e * float("nan"), "gives 40 of 40 images"),
        (lambda s, e: e - e.mean(), "a score may depend on the image's own outputs alone"),
        (lambda s, e: e.argsort().argsort().double(), "own outputs alone"),
        (lambda s, e: e.softmax(0), "own outputs alone"),
        (lambda s, e: e / len(e), "own outputs alone"),
        (lambda s, e: e.flip(0), "own outputs alone"),
        (lambda s, e: torch.rand(len(e)), "other scores the second time: random numbers"),
        (lambda s, e: e + 1e-3 * torch.from_numpy(np.random.rand(len(e))), "second time"),
        (
            lambda s, e: e.no_such(),
            r"AttributeError \('Tensor' .*\) in .*test_checked_\w+\.py",
        ),
        (lambda s, e: (_ for _ in ()).throw(SystemExit(0)), "raises SystemExit"),
    ],
)
def test_scores_that_are_none(turn, text):
    with pytest.raises(Faulty, match=text) as caught:
        energy(turn=turn).predict(logits())
    assert str(caught.value).startswith("detector mine: Mine.score ")
    assert "\n" not in str(caught.value)


def _kept(self, scores):
    """Score by the number of the call."""
    self.calls = getattr(self, "calls", 0) + 1
    return scores + self.calls


def test_what_is_kept_between_calls_is_seen():
    with pytest.raises(Faulty, match="second time"):
        energy(turn=_kept).predict(logits())


@pytest.mark.parametrize(
    "turn",
    [
        lambda s, e: e.numpy(),
        lambda s, e: e.numpy()[::-1][::-1],
        lambda s, e: e.requires_grad_(),
        lambda s, e: e.float(),
        lambda s, e: (100 * e).long(),
    ],
)
def test_other_kinds_of_numbers_are_taken(turn):
    found = energy(turn=turn).predict(logits())
    assert found.dtype == torch.float64
    assert not found.requires_grad
    assert len(found.unique()) > 10


def test_good_scores_stay_as_they_are_for_any_number_of_images():
    plain, looked = Energy(), energy()
    for count in (1, 2, 3, 40):
        assert torch.equal(looked.predict(logits(count)), plain.predict(logits(count)))
    assert isinstance(looked, Energy)
    assert type(looked).__qualname__ == "Mine"


def test_rounding_of_distances_near_zero_is_no_fault():
    bank = 100 + torch.randn(300, 64, generator=torch.Generator().manual_seed(0))

    class Nearest(Energy):
        def score(self, outputs):
            return torch.cdist(outputs["logits"], bank).amin(1)

    found = checked("mine", Nearest()).predict({"logits": bank.clone()})
    assert found.max() < 1


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.clamp_(max=0),
        lambda x: x.data.zero_(),
        lambda x: x.numpy().fill(0),
        lambda x: x.resize_(2, 2),
    ],
)
def test_a_change_of_the_input_names_the_culprit_and_leaves_the_input(change):
    def score(self, outputs):
        change(outputs["logits"])
        return torch.zeros(40)

    given = logits()
    with pytest.raises(Faulty, match=r"Mine.score changes its input in place \(logits\)"):
        energy(score=score).predict(given)
    assert torch.equal(given["logits"], logits()["logits"])


class Fitted(Energy):
    supervision = "training"
    bank_reads = ("logits",)
    mean = 0.0

    def fit(self, bank, fit, choose, seed=0):
        self.mean = bank["logits"].mean(0)

    def score(self, outputs):
        return (outputs["logits"] - self.mean).norm(dim=1)

    def state(self):
        return {"mean": self.mean}

    def load(self, state):
        self.mean = state["mean"]


def parts():
    return logits(30, 1), Samples.join(logits(10, 2), logits(10, 3)), Samples.normal(logits(5, 4))


@pytest.mark.parametrize("part", ["bank", "fit", "abnormal", "choose"])
def test_a_change_of_what_fit_is_given(part):
    class Changes(Fitted):
        def fit(self, bank, fit, choose, seed=0):
            tensors = {"bank": bank["logits"], "fit": fit.outputs["logits"],
                       "abnormal": fit.abnormal, "choose": choose.outputs["logits"]}  # fmt: skip
            tensors[part].zero_()

    given = parts()
    with pytest.raises(Faulty, match=r"Changes.fit changes its input in place"):
        checked("mine", Changes()).fit(*given)
    assert torch.equal(given[1].abnormal, torch.arange(20) >= 10)
    assert torch.equal(given[0]["logits"], logits(30, 1)["logits"])


def test_fit_returns_the_detector_whatever_it_returns_itself():
    detector = checked("mine", Fitted())
    assert detector.fit(*parts()) is detector
    assert checked("mine", Fitted()).load(detector.state()).mean.shape == (5,)


def test_random_numbers_of_the_process_are_those_of_the_seed():
    class Random(Fitted):
        def fit(self, bank, fit, choose, seed=0):
            self.mean = torch.rand(5) + float(np.random.rand())

    before = torch.get_rng_state()
    one, two, other = (checked("mine", Random()).fit(*parts(), seed=s).mean for s in (3, 3, 4))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("state", [None, [1], {"mean": 1.0}, {1: torch.ones(1)}])
def test_a_state_that_is_no_dict_of_tensors(state):
    class Odd(Fitted):
        def state(self):
            return state

    with pytest.raises(Faulty, match=r"Odd.state gives .*tensors is due"):
        checked("mine", Odd()).fit(*parts()).state()


def test_a_state_that_does_not_hold_all_that_was_learned():
    class Forgets(Fitted):
        def state(self):
            return {}

        def load(self, state):
            pass

    def tried(kind):
        detector = checked("mine", kind()).fit(*parts())
        make = lambda: checked("mine", kind())  # noqa: E731
        check_state(detector, make, lambda d: d.predict(logits(3)).numpy())

    class Keeps(Forgets):
        mean = property(lambda self: vars(self)["kept"])

        def fit(self, bank, fit, choose, seed=0):
            vars(self)["kept"] = bank["logits"].mean(0)

    tried(Fitted)
    with pytest.raises(Faulty, match=r"KeyError .* once state\(\) went through load\(\)"):
        tried(Keeps)
    with pytest.raises(Faulty, match=r"Forgets.load\(state\(\)\) gives a score of .* where"):
        tried(Forgets)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"info": None}, r"Mine.info is missing: Info\(title"),
        ({"supervision": "nun"}, "no supervision named 'nun': did you mean none"),
        ({"supervision": None}, "no supervision named 'None'"),
        ({"reads": "logits"}, r"Mine.reads is 'logits': write a list of outputs, \('logits',\)"),
        ({"reads": ("logit",)}, "Mine.reads: no output named 'logit': did you mean logits"),
        ({"reads": ("labels",)}, "Mine.reads: no output named 'labels'"),
        ({"reads": ()}, "Mine.reads is empty"),
        ({"bank_reads": ("logit",)}, "Mine.bank_reads: no output named 'logit'"),
        ({"bank_images": 0}, "Mine.bank_images is 0: a whole number, at least 1, or None for all"),
        ({"bank_images": "ten"}, "Mine.bank_images is 'ten'"),
        ({"hold_out_reads": ("head/bias",)}, "Mine.hold_out_reads"),
        ({"synthetic": MappingProxyType({"noise": None})}, "go together"),
        (
            {"perturbed_passes": property(lambda self: 1 / 0)},
            r"raises ZeroDivisionError .*line \d+",
        ),
        ({"pass_count": property(lambda self: self.nothing)}, "raises AttributeError"),
    ],
)
def test_declarations(changes, text):
    with pytest.raises(Faulty, match=text) as caught:
        check_declared("mine", type("Mine", (Energy,), changes)())
    assert str(caught.value).startswith("detector mine: Mine")


def test_declarations_that_are_missing_or_no_detector_at_all():
    class Bare(Detector):
        def score(self, outputs):
            return outputs

    for name, there in {"info": Energy.info, "supervision": "none", "reads": ["logits"]}.items():
        with pytest.raises(Faulty, match=name):
            check_declared("mine", Bare())
        setattr(Bare, name, there)
    check_declared("mine", Bare())
    with pytest.raises(Faulty, match="is not derived from"):
        check_declared("mine", object())


def test_scores_of_gradbenchs_own_are_looked_at_and_not_copied(monkeypatch):
    seen = []
    score = MSP.score
    monkeypatch.setattr(MSP, "score", lambda self, o: seen.append(o["logits"]) or score(self, o))
    given = logits()
    found = checked("msp", MSP()).predict(given)
    assert [one is given["logits"] for one in seen] == [True]
    assert torch.equal(found, MSP().predict(given))
    with pytest.raises(Faulty, match="not finite"):
        checked("msp", MSP()).predict({"logits": torch.full((3, 5), float("nan"))})
