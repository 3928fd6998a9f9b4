"""The kernel of DUQ on features, against its formula and in places where it can be told."""

import numpy as np
import pytest
import torch

from gradbench.methods.base import Samples
from gradbench.methods.duq_distance import DUQDistance

NOTHING = Samples.normal({})


@pytest.mark.parametrize("sigma", [0.5, 3.0])
def test_it_is_the_log_of_the_largest_kernel_value(sigma):
    draw = torch.Generator().manual_seed(0)
    bank = {
        "features": torch.randn(90, 12, generator=draw),
        "labels": torch.randint(0, 5, (90,), generator=draw),
    }
    features = torch.randn(30, 12, generator=draw)
    known, labels = bank["features"].double().numpy(), bank["labels"].numpy()
    centroids = [known[labels == c].mean(0) for c in range(5)]
    largest = [
        max(np.exp(-np.mean((h - e) ** 2) / (2 * sigma**2)) for e in centroids)
        for h in features.double().numpy()
    ]
    found = DUQDistance().fit(bank, NOTHING, NOTHING).score({"features": features})
    np.testing.assert_allclose(found.numpy(), -2 * sigma**2 * np.log(largest), rtol=1e-10)


def test_far_features_do_not_tie_and_a_class_without_images_has_no_centroid():
    """At the paper's length scale 0.1 the kernel of both would be 0: exp(-50 d^2)."""
    bank = {"features": torch.tensor([[0.0, 0.0], [4.0, 0.0]]), "labels": torch.tensor([0, 2])}
    detector = DUQDistance().fit(bank, NOTHING, NOTHING)
    assert detector.centroids.shape == (2, 2)
    found = detector.score({"features": torch.tensor([[4.0, 0.0], [54.0, 0.0], [64.0, 0.0]])})
    assert found.tolist() == [0, 50**2 / 2, 60**2 / 2]
