"""The statistic of the random-labels control."""

from types import SimpleNamespace

import numpy as np

from gradbench.run.measurement import rank_p
from gradbench.statistics.bootstrap import FoldScores


def _kept(normal: list[np.ndarray], abnormal: list[np.ndarray], frames: int = 1):
    folds = []
    for fold, (n, a) in enumerate(zip(normal, abnormal)):
        groups = (np.array([f"{fold}/{side}/{i // frames}" for i in range(len(values))])
                  for side, values in (("n", n), ("a", a)))  # fmt: skip
        folds.append(FoldScores(n, next(groups), a, next(groups)))
    return SimpleNamespace(folds=lambda: folds)


def test_constant_scores_tell_nothing_apart():
    assert rank_p(_kept([np.zeros(50)] * 5, [np.zeros(50)] * 5)) == 1


def test_folds_of_different_scale_are_ranked_apart():
    draw = np.random.default_rng(0)
    normal = [draw.normal(size=60) * 10**fold + 100 * fold for fold in range(5)]
    shifted = [draw.normal(size=60) * 10**fold + 100 * fold + 2 * 10**fold for fold in range(5)]
    assert rank_p(_kept(normal, shifted)) < 1e-20


def test_frames_of_a_track_are_one_witness():
    draw = np.random.default_rng(1)
    tracks = [np.repeat(draw.normal(size=5), 20) for _ in range(10)]
    by_image = rank_p(_kept(tracks[:5], tracks[5:]))
    by_track = rank_p(_kept(tracks[:5], tracks[5:], frames=20))
    assert by_track > by_image
