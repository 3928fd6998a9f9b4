"""Who is fitted on what: the fit part of every fold, and which scores are its."""

import numpy as np
import torch

from gradbench.detectors.base import Detector, Info, Samples
from gradbench.detectors.scoring import Clean, divided, score_folds
from gradbench.evaluation.protocols import Grouped


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
    for scores, fold in zip(divided(normal, abnormal, folds), folds):
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
    scores, _ = score_folds(make, normal, abnormal, folds, 0, Clean({}, {}))
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
            Supervised, _outputs(100, 0), _outputs(100, 1), _folds(), 0, Clean({}, {})
        )
        assert torch.get_num_threads() == threads
        found.append(np.concatenate([s.normal for s in scores]))
    torch.set_num_threads(before)
    assert np.array_equal(*found)
