"""Detectors on products with class means, against whole gradients and projections in float64."""

import numpy as np
import pytest
import torch
from _dummies import images, network

from gradbench.errors import GradbenchError
from gradbench.methods.base import Samples
from gradbench.methods.class_alignments import (
    ClassAlignmentsKNN,
    ClassAlignmentsMahalanobis,
    ClassCosine,
    GradPCASpan,
)
from gradbench.outputs.catalogue import built_in
from gradbench.outputs.layers import last_stage
from gradbench.outputs.learned import Lessons
from gradbench.outputs.read import read_outputs

NOTHING = Samples.normal({})
TENSORS = ["last_stage", "all"]


def pixels(data) -> torch.Tensor:
    return torch.from_numpy(data.images[slice(None)]).float() / 255


def gradients(f, data, names) -> list[np.ndarray]:
    """Return the gradients of every image's largest logit by tensor, one image at a time."""
    chosen = [dict(f.named_parameters())[name] for name in names]
    rows = [torch.autograd.grad(f(image[None]).max(), chosen) for image in pixels(data)]
    return [torch.stack(c).double().flatten(1).numpy() for c in zip(*rows)]


@pytest.fixture(scope="module", params=TENSORS)
def given(request):
    """Return (choice, what the fit gets, outputs of new images, their and the means' gradients)."""
    f, train, hold_out, new = network(), images(90, 9), images(45, 8), images(12, 3)
    source = f"class_alignments/{request.param}"
    (output,), _ = Lessons(f, "", train, None).taught(built_in().of_network(f, [source]))
    names = last_stage(f) if request.param == "last_stage" else [n for n, _ in f.named_parameters()]
    read = [read_outputs(f, pixels(data), [output, *built_in().of_network(f, ["logits"])])
            for data in (hold_out, new)]  # fmt: skip
    means = [np.stack([g[train.labels == c].mean(0) for c in range(3)])
             for g in gradients(f, train, names)]  # fmt: skip
    bank = {f"learned/{source}/gram": output.learned["gram"]}
    held = read[0] | {"labels": torch.from_numpy(hold_out.labels)}
    of_images = [gradients(f, data, names) for data in (hold_out, new)]
    return request.param, bank, Samples.normal(held), read[1], of_images, means


def whole(parts) -> np.ndarray:
    return np.concatenate(parts, axis=1)


def inside(gradients: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Return the projections of unit gradients on the span of the means."""
    _, sizes, rows = np.linalg.svd(means, full_matrices=False)
    span = rows[sizes > 1e-3 * sizes[0]]
    units = gradients / np.linalg.norm(gradients, axis=1, keepdims=True)
    return units @ span.T @ span


def test_gradpca_is_the_length_of_the_projection(given):
    tensors, bank, fit, outputs, (_, new), means = given
    found = GradPCASpan(tensors).fit(bank, fit, fit).score(outputs)
    expected = -np.linalg.norm(inside(whole(new), whole(means)), axis=1)
    np.testing.assert_allclose(found, expected, rtol=2e-4)


def test_class_cosine_is_that_of_whole_gradients(given):
    tensors, bank, fit, outputs, (_, new), means = given
    found = ClassCosine(tensors).fit(bank, fit, fit).score(outputs)
    one, mean = whole(new), whole(means)[outputs["logits"].argmax(1).numpy()]
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(mean, axis=1)
    np.testing.assert_allclose(found, -(one * mean).sum(1) / lengths, rtol=2e-4, atol=1e-6)


def test_neighbours_are_those_of_projections(given):
    tensors, bank, fit, outputs, (held, new), means = given
    found = ClassAlignmentsKNN(tensors, k=4).fit(bank, fit, fit).score(outputs)
    near, one = (inside(whole(g), whole(means)) for g in (held, new))
    distances = np.linalg.norm(one[:, None] - near[None], axis=2)
    np.testing.assert_allclose(found, np.sort(distances, axis=1)[:, 3], rtol=2e-3, atol=1e-5)


def mahalanobis(held: np.ndarray, labels: np.ndarray, new: np.ndarray) -> np.ndarray:
    classes = np.unique(labels)
    centres = np.stack([held[labels == c].mean(0) for c in classes])
    centred = held - centres[np.searchsorted(classes, labels)]
    precision = np.linalg.pinv(centred.T @ centred / len(held), hermitian=True, rcond=1e-12)
    away = new[:, None] - centres[None]
    return 0.5 * np.einsum("ncd,de,nce->nc", away, precision, away).min(1)


def test_gaussians_are_those_of_projections(given):
    tensors, bank, fit, outputs, (held, new), means = given
    found = ClassAlignmentsMahalanobis(tensors).fit(bank, fit, fit).score(outputs)
    _, sizes, rows = np.linalg.svd(whole(means), full_matrices=False)
    span = rows[sizes > 1e-3 * sizes[0]]  # any coordinates in the span give these distances
    near, one = (inside(whole(g), whole(means)) @ span.T for g in (held, new))
    expected = mahalanobis(near, fit.outputs["labels"].numpy(), one)
    np.testing.assert_allclose(found, expected, rtol=2e-2)


def test_gaussians_of_single_tensors_are_those_of_their_lengths_in_the_span(given):
    tensors, bank, fit, outputs, (held, new), means = given
    detector = ClassAlignmentsMahalanobis(tensors, of="tensors").fit(bank, fit, fit)
    columns = [
        np.stack([np.linalg.norm(inside(g, m), axis=1) for g, m in zip(side, means)], axis=1)
        for side in (held, new)
    ]
    np.testing.assert_allclose(detector._values(outputs), columns[1], rtol=1e-3, atol=1e-5)
    assert detector.score(outputs).shape == (12,)
    assert len(detector.gaussians.means) == 1


def known(products, squares):
    """Return two images' outputs for two classes, one tensor."""
    values = torch.tensor([[[s], [a], [b]] for s, (a, b) in zip(squares, products)])
    return {"class_alignments/all": values, "logits": torch.tensor([[1.0, 0.0], [0.0, 1.0]])}


def test_gradients_in_the_span_across_it_and_of_length_zero():
    """Means (2, 0, 0) and (1, 1, 0); gradients (3, 4, 0), (0, 0, 5), then nothing."""
    gram = {"learned/class_alignments/all/gram": torch.tensor([[[4.0, 2.0], [2.0, 2.0]]])}
    outputs = known([(6.0, 7.0), (0.0, 0.0)], [25.0, 25.0])
    span = GradPCASpan("all").fit(gram, NOTHING, NOTHING)
    assert span.score(outputs).tolist() == pytest.approx([-1, 0])
    cosine = ClassCosine("all").fit(gram, NOTHING, NOTHING)
    assert cosine.score(outputs).tolist() == pytest.approx([-3 / 5, 0])
    nothing = known([(0.0, 0.0), (0.0, 0.0)], [0.0, 0.0])
    assert span.score(nothing).tolist() == cosine.score(nothing).tolist() == [0, 0]


def test_means_that_depend_on_each_other_span_what_they_can():
    """The second mean is twice the first, the third is that of a class without images."""
    m = torch.tensor([[3.0, 4.0], [6.0, 8.0], [0.0, 0.0]])
    gram = {"learned/class_alignments/all/gram": (m @ m.T)[None]}
    g = torch.tensor([[3.0, 4.0], [4.0, -3.0], [1.0, 0.0]])
    values = torch.cat([g.square().sum(1, keepdim=True), g @ m.T], dim=1)[:, :, None]
    found = GradPCASpan("all").fit(gram, NOTHING, NOTHING).score({"class_alignments/all": values})
    assert found.tolist() == pytest.approx([-1, 0, -0.6], abs=1e-6)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: ClassAlignmentsKNN(k=0), "class_alignments_knn k=0: a whole number"),
        (lambda: ClassAlignmentsMahalanobis(of="some"), "valid choices are tensors, whole"),
    ],
)
def test_settings_out_of_range_are_refused(make, told):
    with pytest.raises(GradbenchError, match=told):
        make()


def test_a_hold_out_of_too_few_images_is_refused(given):
    tensors, bank, fit, *_ = given
    with pytest.raises(GradbenchError, match="class_alignments_knn k=46: choose a whole number"):
        ClassAlignmentsKNN(tensors, k=46).fit(bank, fit, fit)
