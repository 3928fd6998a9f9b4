"""The benchmark from Python, on images in memory."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import gradbench
from gradbench.errors import GradbenchError

FAST = ["evaluation.replicates=100"]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    layers = [torch.nn.Flatten(), torch.nn.Linear(48, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3)]
    return torch.nn.Sequential(*layers).eval()


def pictures(count, seed, high=256):
    pixels = np.random.default_rng(seed).integers(0, high, (count, 3, 4, 4))
    return torch.from_numpy(pixels.astype(np.uint8))


@pytest.fixture(scope="module")
def rows(model):
    labels = torch.arange(60) % 3
    return gradbench.evaluate(
        model,
        normal=DataLoader(TensorDataset(pictures(60, 0), labels), batch_size=16),
        abnormal={"dark": pictures(50, 1, 60), "alike": pictures(40, 2).float() / 255},
        detectors=["msp", "knn", "gradient_fused"],
        fit=pictures(80, 3),
        settings=FAST,
    )


def test_rows_are_those_of_a_run(rows, model):
    found = rows[(rows.role == "main") & (rows.metric == "auroc") & (rows.fold == "all")]
    counts = found[found.challenge == "dark"][["n_normal", "n_abnormal"]].drop_duplicates()
    assert counts.to_numpy().tolist() == [[60, 50]]
    assert {*found.method} == {"msp", "knn", "gradient_fused"}
    assert {*found.challenge} == {"dark", "alike", "mean:ood"}
    assert (found.lo <= found.value).all()
    (accuracy,) = rows[rows.metric == "accuracy"].value
    with torch.inference_mode():
        right = model(pictures(60, 0) / 255).argmax(1) == torch.arange(60) % 3
    assert accuracy == pytest.approx(100 * right.double().mean().item())
    identity = rows[(rows.role == "identity") & (rows.metric == "auroc") & (rows.fold == "all")]
    assert identity.value.tolist() == [50.0] * 3


def test_scores_are_those_of_the_detector_alone(rows, model):
    knn = gradbench.detector("knn").fit(model, pictures(80, 3))
    normal, dark = knn.predict(pictures(60, 0)), knn.predict(pictures(50, 1, 60))
    above = (dark[:, None] > normal).double() + 0.5 * (dark[:, None] == normal).double()
    row = rows.query("method == 'knn' and challenge == 'dark' and metric == 'auroc'")
    assert row[row.fold == "all"].value.item() == pytest.approx(100 * above.mean().item())


def test_pixels_off_the_grid_are_measured_as_they_are(model):
    draw = torch.Generator().manual_seed(0)
    normal, dark = (torch.rand(60, 3, 4, 4, generator=draw) ** power for power in (1, 3))
    found = gradbench.evaluate(model, normal, {"dark": dark}, ["msp"], settings=FAST)
    identity = found.query("role == 'identity' and fold == 'all' and metric == 'auroc'")
    assert identity.value.tolist() == [50.0]


def test_detectors_that_learn_from_challenges(model):
    sets = pictures(60, 0), {"dark": pictures(50, 1, 60)}
    more = {"protocol": "grouped", "settings": FAST}
    found = gradbench.evaluate(model, *sets, ["gradient_logistic"], **more)
    assert {"main", "random_labels", "identity"} <= {*found.role}
    assert "accuracy" not in {*found.metric}  # nobody gave labels


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"detectors": ["knn"]}, "knn learns from clean images: give fit=IMAGES"),
        ({"detectors": ["msq"]}, "did you mean msp"),
        ({"detectors": "msq"}, "did you mean msp"),
        ({"abnormal": {"small": torch.zeros(20, 3, 2, 2)}}, "the model takes (3, 4, 4)"),
        ({"model": torch.nn.Flatten()}, "training mode"),
        ({"detectors": ["ensemble_variance"]}, "members are the logits of all networks of a run"),
        (
            {"detectors": ["ensemble_variance"], "settings": [*FAST, "seeds=[0,1]"]},
            "members are the logits of all networks of a run, and there is one",
        ),
        ({"detectors": ["mc_dropout"]}, "has no dropout (no module like torch.nn.Dropout"),
        ({"detectors": ["gradient"]}, "measures detectors of supervision none or synthetic alone"),
    ],
)
def test_faults_are_one_sentence(model, changes, text):
    given = {"model": model, "normal": pictures(30, 0), "abnormal": {"dark": pictures(30, 1, 60)}}
    given |= {"detectors": ["msp"], "settings": FAST} | changes
    with pytest.raises(GradbenchError, match=text.replace("(", r"\(").replace(")", r"\)")):
        gradbench.evaluate(**given)


def test_results_are_loaded_in_one_line():
    found = gradbench.load_results("results/quickstart")
    assert {"msp", "gradient"} <= {*found.method}
    with pytest.raises(GradbenchError, match="there is no run at nowhere"):
        gradbench.load_results("nowhere")
