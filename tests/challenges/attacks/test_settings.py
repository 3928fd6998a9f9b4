"""Settings of attacks: what is refused, and the values of the two presets."""

from dataclasses import dataclass

import pytest

from gradbench.challenges.attacks.base import Adversarial
from gradbench.config import compose, expand
from gradbench.errors import GradbenchError
from gradbench.support.instantiate import instantiate


@pytest.mark.parametrize(
    ("use", "text"),
    [
        ({"use": "fgsm", "epsilon": -0.1}, "fgsm epsilon=-0.1: choose a value between 0 and 1"),
        ({"use": "fgsm", "epsilon": "8/0"}, "fgsm epsilon=8/0: choose a value between 0 and 1"),
        ({"use": "bim", "steps": 0}, "bim steps=0: choose a whole number of at least 1"),
        ({"use": "bim", "step": 0}, "bim step=0: choose a value above 0, up to 1"),
        ({"use": "pgd", "norm": "l3"}, "no norm of pgd named 'l3'"),
        ({"use": "pgd", "norm": "l3"}, "valid choices are l2, linf"),
        ({"use": "pgd", "restarts": 0.5}, "pgd restarts=0.5: write a whole number"),
        ({"use": "cw", "space": "hsv"}, "valid choices are normalised, pixels"),
        ({"use": "cw", "constant": -1}, "cw constant=-1: choose a value between 0 and"),
        (
            {"use": "iterll", "keep": "foo"},
            "'foo': valid choices are all, successful",
        ),
        ({"use": "semantic", "trials": -3}, "semantic trials=-3: choose a whole number"),
        ({"use": "semantic", "noisy_negatives": 2}, "noisy_negatives=2: write true or false"),
        ({"use": "semantic", "noise": -1}, "noise=-1: choose a value between 0 and 10"),
    ],
)
def test_bad_settings_are_answered_with_the_valid_ones(use, text):
    ((name, content),) = expand("challenge", [use])
    with pytest.raises(GradbenchError) as fault:
        instantiate("challenge", name, content)
    assert text in str(fault.value)


@dataclass(kw_only=True, eq=False)
class Own(Adversarial):
    """An attack of a user's, in a module whose annotations are no text."""

    epsilon: float | str = "8/255"
    steps: int = 2
    family = "own"

    def attack(self, clean, strength, seed, network):
        return clean.grey


def test_settings_of_a_users_attack_are_checked_too():
    assert Own().strengths == (8 / 255,)
    for wrong in ({"epsilon": 7}, {"steps": 0}):
        with pytest.raises(GradbenchError, match=f"own {next(iter(wrong))}="):
            Own(**wrong)


@pytest.mark.parametrize("suite", ["attacks_reference", "attacks_modern"])
def test_the_suites_hold_the_six_attacks_under_their_plain_names(suite):
    members = {n: instantiate("challenge", n, c) for n, c in expand("challenge", [suite])}
    assert sorted(members) == ["bim", "cw", "fgsm", "iterll", "pgd", "semantic"]
    kept = {a.keep for a in members.values()}
    assert kept == ({"successful"} if suite == "attacks_reference" else {"all"})


def test_the_values_of_the_old_protocol():
    members = {
        n: instantiate("challenge", n, c) for n, c in expand("challenge", ["attacks_reference"])
    }
    assert members["fgsm"].strengths == (0.05,)
    bim = members["bim"]
    assert (bim.steps, bim.step, bim.first_step) == (6, 0.01, 0.002)
    # so its budget cuts nothing off
    assert bim.strengths[0] == pytest.approx(bim.first_step + 5 * bim.step)
    cw = members["cw"]
    assert (cw.strengths, cw.steps, cw.rate) == ((1.0,), 100, 0.01)
    assert (cw.binary_steps, cw.confidence, cw.space) == (1, 0, "normalised")
    assert [members[n].noise for n in ("fgsm", "bim", "cw")] == [0.0625, 0.065, 0.025]
    assert all(members[n].noisy_negatives for n in ("fgsm", "bim", "cw"))
    assert members["pgd"].strengths == (8 / 255,)
    assert (members["pgd"].step, members["pgd"].steps) == (2 / 255, 20)
    assert (members["iterll"].strengths, members["iterll"].steps) == ((8 / 255,), 10)
    assert members["semantic"].trials == 1000


def test_the_run_may_say_what_is_kept_of_all_attacks():
    config = compose(["experiment=adversarial_digits"])
    assert config["challenge"]["keep"] == "successful"
    assert config["challenge"]["noisy_negatives"] is False
