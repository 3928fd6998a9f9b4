"""Every command tells what it does where that may take seconds; see `support.progress`."""

import pytest
from _runs import SMALL, TINY, gradbench, reference

from gradbench.support import progress


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return reference(tmp_path_factory.getbasetemp())


@pytest.fixture
def steps(monkeypatch):
    """List what would be told of each step if it took long; nothing is."""
    found = []
    monkeypatch.setattr(progress._Watch, "open", lambda self, one: found.append(one.what))
    monkeypatch.setattr(progress._Watch, "close", lambda self, one: None)
    return found


@pytest.mark.slow
def test_steps_of_a_run(tmp_path, steps):
    words = [w for w in TINY if "memorisation" not in w]
    ran = gradbench(
        "run", *words, "detectors=[msp,gradient_oneclass,gradient_logistic]", cwd=tmp_path
    )
    assert ran.code == 0, ran.err
    for what in (
        "loading libraries",
        "loading digits train",
        "loading digits test",
        "reading digits train for its fingerprint",
        "looking at the published archives",
        "trying the network on a few images",
        "timing a few steps of training",
        "training",
        "loading the trained network",
        "outputs of digits test",
        "outputs of digits hold-out",
        "identity control: gaussian_noise of strength zero on 200 images",
        "measuring gaussian_noise 5",
        "making gaussian_noise 5",
        "outputs of gaussian_noise 5 test",
        "gradient_logistic: fit and scores on gaussian_noise 5",
        "gradient_oneclass: fit",
        "intervals from 100 resamples",
        "bootstrap: 100 resamples",
        "control identity",
        "control memorisation",
        "thresholds on the hold-out",
        "gradient_logistic: timing the passes of 64 images",
        "means and differences of the detectors",
        "writing results to run",
        "drawing figures",
    ):
        assert what in steps, what


def test_steps_of_a_plan(finished, tmp_path, steps):
    cw = "challenges=[{use: cw, steps: 5, binary_steps: 4}]"
    detectors = "detectors=[msp,odin_fixed]"
    assert gradbench("plan", *SMALL, cw, detectors, cwd=finished).code == 0
    for what in (
        "planning",
        "timing the outputs of digits test",
        "trying cw on 10 images",
        "timing perturbed passes to logits",
    ):
        assert what in steps, what
    assert gradbench("plan", *SMALL, "out=x", "store=none", cwd=tmp_path).code == 0
    assert "timing a few steps of training" in steps


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["show", "run"], ["reading run"]),
        (["report", "run", "out={}/r.html"], ["reading the runs", "chapters of the report"]),
        (["tables", "ood", "results=."], ["reading the runs under .", "filling the table ood"]),
        (["store", "verify", "store=store"], ["looking through store"]),
        (["data", "verify", "digits"], ["reading digits train", "checks of digits test"]),
        (["data", "list"], ["looking for data sets under data"]),
        (["data", "show", "digits", "n=1", "out={}/d.png"], ["drawing d.png"]),
        (
            ["score", "run", "{}/d.png", "--out", "{}/s.csv", "--device", "cpu"],
            ["looking for pictures", "loading network and detectors of run", "scores"],
        ),
    ],
    ids=lambda words: words[0] if len(words) < 9 else None,
)
def test_steps_of_other_commands(finished, tmp_path, steps, words, wanted):
    from PIL import Image

    Image.new("L", (8, 8)).save(tmp_path / "d.png")
    ran = gradbench(*(word.format(tmp_path) for word in words), cwd=finished)
    assert ran.code == 0, ran.err
    for what in wanted:
        assert what in steps, (what, steps)
