"""Runs with corruptions: what sweep and run share, what rows say, where images are from."""

import shutil

import numpy as np
import pytest
from _runs import gradbench, kept, one_sentence, rows

from gradbench.challenges import archive
from gradbench.challenges.corruptions.digital import Brightness, Contrast
from gradbench.challenges.produce import ChallengeSetup
from gradbench.data.imageset import ImageSet, source_ids
from gradbench.run.rows import is_mean

pytestmark = pytest.mark.slow

DIGITS = (
    *(
        "experiment=corruption_digits",
        "training.epochs=1",
        "limit=100",
        "evaluation.replicates=100",
    ),
    *("detectors=[msp]", "challenges=[fog,{use: contrast, table: imagenet}]", "store=store"),
    *("controls.random_labels=false", "controls.round_trip=false", "out=run", "data.root=nowhere"),
)
EACH = 100


def test_sweep_and_run_share_their_products(tmp_path):
    ran = gradbench("sweep", *DIGITS, "level=2,5", cwd=tmp_path)
    assert ran.code == 0, ran.err
    before = kept(tmp_path)
    (tmp_path / "run").rename(tmp_path / "swept")
    ran = gradbench("run", *DIGITS, "levels=[2,5]", cwd=tmp_path)
    assert ran.code == 0, ran.err
    assert kept(tmp_path) == before
    found = rows(tmp_path, metric="auroc", fold="all", challenge_set="corruption", method="msp")
    found = [row for row in found if not is_mean(row["challenge"])]
    assert {(r["challenge"], r["level"]) for r in found} == {
        (family, level) for family in ("fog", "contrast") for level in ("2", "5")
    }
    for row in found:
        assert row["source"] == "generated"
        table = {"fog": "cifar", "contrast": "imagenet"}[row["challenge"]]
        assert f"constants: {table}" in row["note"]
        assert row["n_abnormal"] == "100"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Return a data root with a small CIFAR-10 in another order than its archive."""
    root = tmp_path_factory.mktemp("home")
    rng = np.random.default_rng(0)
    for folder in ("cifar10", "CIFAR-10-C"):
        (root / folder).mkdir()
    parts = {}
    for split, count in (("train", 300), ("test", EACH)):
        pixels = rng.integers(0, 200, (count, 3, 8, 8)).repeat(4, 2).repeat(4, 3).astype(np.uint8)
        labels = np.arange(count) % 10
        order = rng.permutation(count)
        np.savez(
            root / "cifar10" / f"{split}.npz",
            images=pixels[order].transpose(0, 2, 3, 1),
            labels=labels[order],
        )
        parts[split] = ImageSet("c", split, pixels, labels, source_ids("c", split, count))
    test = parts["test"]
    for challenge in (Brightness(), Contrast()):
        levels = [
            ChallengeSetup(challenge, "x", challenge.strength_at(level)).make(test, np.arange(EACH))
            for level in challenge.levels
        ]
        array = np.concatenate(levels).transpose(0, 2, 3, 1)
        np.save(root / "CIFAR-10-C" / f"{challenge.family}.npy", array)
    np.save(root / "CIFAR-10-C/labels.npy", np.tile(test.labels, 5).astype(np.uint8))
    return root


def words(root, *more: str) -> tuple[str, ...]:
    return (
        *("dataset=cifar10", "dataset.holdout=50", "backbone=small_cnn", "backbone.width=4"),
        *("dataset.counts.train=300", f"dataset.counts.test={EACH}", "training.epochs=1"),
        *("evaluation.replicates=100", "detectors=[msp,gradient_logistic]"),
        *("challenges=[contrast,fog]", "levels=[3]", f"data.root={root}", "data.download=false"),
        *("controls.random_labels=false", "controls.random_split=false", "out=run", "store=store"),
        *more,
    )


def test_published_images_are_taken_where_they_are(home, tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "EACH", EACH)
    planned = gradbench("plan", *words(home), cwd=tmp_path)
    assert planned.code == 0, planned.err
    results = {}
    for source in ("auto", "generated", "archive"):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)  # of another configuration
        ran = gradbench("run", *words(home, f"challenge.source={source}"), cwd=tmp_path)
        assert ran.code == 0, ran.err
        found = rows(tmp_path, metric="auroc", fold="all", method="gradient_logistic", level="3")
        results[source] = {row["challenge"]: row for row in found}
    auto, generated, published = results.values()
    assert [auto[c]["source"] for c in ("contrast", "fog")] == ["official", "generated"]
    assert [generated[c]["source"] for c in ("contrast", "fog")] == ["generated", "generated"]
    assert published["contrast"]["source"] == "official"
    (hole,) = rows(tmp_path, challenge="fog")
    assert hole["note"].startswith("not measured: ")
    assert "does not hold fog.npy" in hole["note"]
    assert "archive CIFAR-10-C" in auto["contrast"]["note"]
    assert "in another order" in auto["contrast"]["note"]
    # the archive was made by the same generator, so the two agree to the last digit
    assert auto["contrast"]["value"] == generated["contrast"]["value"]


def test_a_damaged_archive_stops_the_run_before_any_work(home, tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "EACH", EACH + 1)
    text = one_sentence(gradbench("run", *words(home), cwd=tmp_path))
    assert "contrast.npy is (500, 32, 32, 3) uint8 where (505, 32, 32, 3)" in text
    assert not (tmp_path / "store" / "network").exists()


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("levels=[6]", "has no level 6: choose from 1, 2, 3, 4, 5"),
        ("challenge.source=files", "challenge.source=files: write archive, generated or auto"),
        ("challenge.source=archive", "has fog of cifar10 with table=cifar alone"),
    ],
)
def test_bad_input_is_one_sentence(word, text, tmp_path):
    assert text in one_sentence(gradbench("run", *DIGITS, word, cwd=tmp_path))
