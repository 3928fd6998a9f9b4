"""Who is fitted on what: the fit part of every fold, and which scores are its."""

import numpy as np
import torch

from gradbench.methods.base import Detector, Info, Samples
from gradbench.methods.fold_scores import CleanOutputs, divide_by_fold, score_folds
from gradbench.protocols.base import Grouped


class Nearest(Detector):
    """Distance to the nearest image of the fit: 0 for an image that was fitted on."""

    info = Info("none", "none", "none")
    reads = ("x",)

    def fit(self, bank, fit: Samples, choose: Samples, seed: int = 0):
        self.known = fit.outputs["x"][~fit.abnormal]
        self.seen = fit, choose
        return self

    def score(self, outputs):
        return torch.cdist(outputs["x"], self.known).amin(1).double()


class Supervised(Nearest):
    supervision = "training"


def _outputs(count: int, seed: int):
    return {"x": torch.randn(count, 3, generator=torch.Generator().manual_seed(seed))}


def _folds():
    names = [np.array([f"{side}/{i}" for i in range(100)]) for side in "ab"]
    return Grouped().folds(*names, 0)


def test_scores_of_a_detector_that_is_fitted_once_are_divided_among_the_folds():
    normal, abnormal = np.arange(100.0), 1000 + np.arange(100.0)
    folds = _folds()
    for scores, fold in zip(divide_by_fold(normal, abnormal, folds), folds):
        assert scores.normal.tolist() == fold.measure.normal.tolist()
        assert scores.abnormal.tolist() == (1000 + fold.measure.abnormal).tolist()
        assert scores.choose_normal.tolist() == fold.choose.normal.tolist()
        assert scores.choose_abnormal.tolist() == (1000 + fold.choose.abnormal).tolist()


def test_a_supervised_detector_is_fitted_on_the_fit_part_of_each_fold_alone():
    normal, abnormal = _outputs(100, 0), _outputs(100, 1)
    made = []

    def make():
        made.append(Supervised())
        return made[-1]

    folds = _folds()
    scores, _ = score_folds(make, normal, abnormal, folds, 0, CleanOutputs({}, {}))
    fitted = [d for d in made if hasattr(d, "seen")]
    assert len(fitted) == len(scores) == 5
    for detector, fold in zip(fitted, folds):
        fit, choose = detector.seen
        assert torch.equal(fit.outputs["x"][~fit.abnormal], normal["x"][fold.fit.normal])
        assert torch.equal(fit.outputs["x"][fit.abnormal], abnormal["x"][fold.fit.abnormal])
        assert torch.equal(choose.outputs["x"][~choose.abnormal], normal["x"][fold.choose.normal])


def test_scores_do_not_depend_on_the_number_of_threads():
    before = torch.get_num_threads()
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        scores, _ = score_folds(
            Supervised, _outputs(100, 0), _outputs(100, 1), _folds(), 0, CleanOutputs({}, {})
        )
        assert torch.get_num_threads() == threads
        found.append(np.concatenate([s.normal for s in scores]))
    torch.set_num_threads(before)
    assert np.array_equal(*found)


# further passes


class FakeAgain:
    """Answers a pass with the rows that were asked for, and remembers them."""

    def __init__(self, size: int, seed: int = 0):
        self.order = np.random.default_rng(seed).permutation(size)
        self.asked = []

    def __call__(self, what, rows):
        self.asked.append((what, rows.copy()))
        return torch.from_numpy(rows).double()[:, None, None]


class Moving(Supervised):
    """Asks for one pass while it is fitted and another to score."""

    drawn = 10
    hold_out_reads = ("x",)

    @property
    def perturbed_passes(self):
        return {"again": "chosen"} if hasattr(self, "seen") else {}

    def fit(self, bank, fit, choose, seed=0):
        self.tried = choose.perturb("tried")
        self.few = fit.draw(3)
        self.moved = self.few.perturb("few")
        self.bank = bank
        return super().fit(bank, fit, choose, seed)

    def score(self, outputs):
        return outputs["again"][:, 0, 0]


def test_a_detector_that_perturbs_draws_few_of_choose_and_moves_each_measured_image_once():
    normal, abnormal = _outputs(100, 0), _outputs(100, 1)
    again, made = [FakeAgain(100), FakeAgain(100)], []

    def make():
        made.append(Moving())
        return made[-1]

    folds = _folds()
    clean = CleanOutputs({}, _outputs(30, 2))
    scores, _ = score_folds(make, normal, abnormal, folds, 0, clean, again)
    for detector, fold, found in zip(made, folds, scores):
        drawn = [
            np.sort(rows[np.argsort(side.order[rows])[:10]])
            for side, rows in zip(again, (fold.choose.normal, fold.choose.abnormal))
        ]
        assert detector.tried[:, 0, 0].tolist() == np.concatenate(drawn).tolist()
        assert torch.equal(detector.seen[1].outputs["x"][:10], normal["x"][drawn[0]])
        assert found.normal.tolist() == fold.measure.normal.tolist()
        assert found.abnormal.tolist() == fold.measure.abnormal.tolist()
        assert found.choose_normal.tolist() == drawn[0].tolist()
        assert found.choose_abnormal.tolist() == drawn[1].tolist()
        few = [
            np.sort(rows[np.argsort(side.order[rows])[:3]])
            for side, rows in zip(again, (fold.fit.normal, fold.fit.abnormal))
        ]
        assert detector.moved[:, 0, 0].tolist() == np.concatenate(few).tolist()
        assert detector.few.abnormal.tolist() == [False] * 3 + [True] * 3
        assert torch.equal(detector.bank["hold_out/x"], clean.hold_out["x"])
    for side in again:
        measured = [
            r for what, rows in side.asked if what == "chosen" for r in rows if len(rows) > 10
        ]
        assert sorted(measured) == list(range(100))


def test_folds_draw_the_same_images_of_the_parts_they_share():
    again = [FakeAgain(100), FakeAgain(100)]
    score_folds(
        Moving, _outputs(100, 0), _outputs(100, 1), _folds(), 0, CleanOutputs({}, {}), again
    )
    for side in again:
        drawn = [set(rows.tolist()) for what, rows in side.asked if what == "tried"]
        assert len(drawn) == 5
        assert len(set.union(*drawn)) < 0.75 * sum(map(len, drawn))
