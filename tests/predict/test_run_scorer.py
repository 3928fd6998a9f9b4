"""Scores of new images are those of the run, from files, arrays and tensors."""

import json
import os
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from _runs import TINY, gradbench
from _scored import SUPERVISED, UNSUPERVISED, finished, world
from PIL import Image
from safetensors.torch import load_file

import gradbench as package
from gradbench.errors import GradbenchError
from gradbench.run.evaluate import FEWER, keeping
from gradbench.run.experiment import instantiate
from gradbench.run.fitting import image_scores, score

pytestmark = pytest.mark.slow  # all look at one finished run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return finished(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def scorer(folder):
    return package.load(folder / "run")


@pytest.fixture(scope="module")
def trial(folder):
    return world(folder)


@pytest.fixture(scope="module")
def table(folder, scorer):
    return scorer.score(folder / "pictures", [*UNSUPERVISED, *SUPERVISED])


def kept_scores(folder, trial, column, seen):
    """Return what the run's own code gives for images, from what it kept."""
    if column in UNSUPERVISED:
        return image_scores(trial, column, seen)
    about = json.loads((folder / "run/model/s0/model.json").read_text())
    (entry,) = (d for d in about["detectors"] if d["column"] == column)
    detector = instantiate("detector", entry["name"], entry["config"])
    state = load_file(folder / "run/model/s0" / entry["state"])
    return score(trial, detector.load(state), seen)


@pytest.mark.parametrize("column", [*UNSUPERVISED, *SUPERVISED])
def test_files_have_the_scores_that_the_run_kept(folder, trial, table, column):
    expected = kept_scores(folder, trial, column, trial.normal)
    assert np.ptp(expected) > 0
    np.testing.assert_allclose(table[column].to_numpy(), expected, rtol=1e-9, atol=1e-12)


def test_kept_outputs_were_all_there(trial):
    assert {key.step for key in trial.store.made} <= {"perturbed"}


def test_class_and_probability(trial, table):
    chances = trial.normal.outputs["logits"].double().softmax(1)
    top = chances.max(1)
    assert table["class"].tolist() == [str(i) for i in top.indices.tolist()]
    np.testing.assert_allclose(table["probability"], top.values.numpy(), rtol=1e-9)
    right = table["class"].to_numpy() == trial.images.normal.labels.astype(str)
    assert right.mean() > 0.8


@pytest.mark.parametrize("kind", ["uint8", "tensor", "float", "double"])
def test_arrays_and_tensors_score_as_files_do(trial, scorer, table, kind):
    pixels = trial.images.normal.images[:70]
    given = {
        "uint8": pixels,
        "tensor": torch.from_numpy(pixels),
        "float": torch.from_numpy(pixels) / 255,
        "double": (torch.from_numpy(pixels) / 255).numpy().astype(np.float64),
    }[kind]
    found = scorer.score(given)
    names = scorer.choose()
    assert list(found) == ["class", "probability", *names, *(f"verdict_{n}" for n in names)]
    for name in names:
        np.testing.assert_allclose(found[name], table[name][:70], rtol=1e-6, atol=1e-9)


def test_default_detectors_saw_no_challenge(scorer):
    assert scorer.default == UNSUPERVISED
    assert set(scorer.detectors) == {*UNSUPERVISED, *SUPERVISED}
    assert scorer.choose(["mahalanobis_p", "msp"]) == [SUPERVISED[1], "msp"]


@pytest.mark.parametrize("column", [*UNSUPERVISED, *SUPERVISED])
def test_a_threshold_keeps_95_percent_of_the_hold_out(trial, scorer, column):
    clean = trial.images.hold_out
    found = scorer.score(clean.images, [column])
    limit = scorer.thresholds[column]
    near = found[column].to_numpy() - limit
    slack = 1e-6 * max(abs(limit), 1)  # the image that sets it may fall on either side by a bit
    assert (near <= slack).sum() >= 0.95 * len(clean)
    assert (near < -slack).sum() < 0.95 * len(clean)
    clear = np.abs(near) > slack
    expected = np.where(near <= 0, "reliable", "abnormal")
    assert (found[f"verdict_{column}"].to_numpy() == expected)[clear].all()


@pytest.mark.parametrize("count", [1, 19, 20, 21, 199, 200, 2000])
def test_the_smallest_threshold_that_keeps_so_many(count):
    scores = np.random.default_rng(count).permutation(count).astype(float)
    limit = keeping(scores)
    kept, without_it = (scores <= limit).mean(), (scores < limit).mean()
    assert kept >= 0.95 > without_it
    assert keeping(np.zeros(7)) == 0


def test_what_is_told_of_thresholds(folder):
    about = json.loads((folder / "run/model/s0/model.json").read_text())
    notes = {d["name"]: d["threshold"]["note"] for d in about["detectors"]}
    assert "fitted on these images" in notes["gradient_oneclass"]
    assert notes["msp"] == notes["knn"] == ""
    assert {d["threshold"]["images"] for d in about["detectors"]} == {200}
    assert FEWER > 200


def test_unreadable_files_are_rows_without_numbers(folder, scorer, tmp_path):
    good = sorted((folder / "pictures").iterdir())[:2]
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "cut.png").write_bytes(good[0].read_bytes()[:60])
    (tmp_path / "empty.jpg").touch()
    bad = [tmp_path / name for name in ("text.png", "cut.png", "empty.jpg")]
    found = scorer.score([good[0], *bad, good[1]], ["msp"])
    alone = scorer.score(good, ["msp"])
    assert found["file"].tolist() == [str(p) for p in (good[0], *bad, good[1])]
    assert found["note"].ne("").tolist() == [False, True, True, True, False]
    assert found["msp"][1:4].isna().all()
    assert found["verdict_msp"].tolist()[1:4] == [""] * 3
    np.testing.assert_allclose(found["msp"][[0, 4]], alone["msp"], rtol=1e-6)
    assert scorer.score(bad, ["msp"])["note"].ne("").all()


def test_what_is_no_file_is_listed_too(folder, scorer, tmp_path, monkeypatch):
    (tmp_path / "gone.png").symlink_to("nowhere")
    (tmp_path / "good.PNG").symlink_to(folder / "pictures/000.png")
    os.mkfifo(tmp_path / "pipe.png")
    Image.new("L", (400, 300)).save(tmp_path / "vast.png")
    (tmp_path / ".hidden.png").touch()
    (tmp_path / "other.txt").touch()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50_000)
    found = scorer.score(tmp_path, ["msp"]).set_index("file")["note"]
    notes = {Path(name).name: note for name, note in found.items()}
    assert "exceeds limit of 100000 pixels" in notes.pop("vast.png")
    told = {"gone.png": "a link that leads nowhere", "good.PNG": "", "pipe.png": "no regular file"}
    assert notes == told
    assert scorer.score(tmp_path / "pipe.png")["note"].tolist() == ["no regular file"]


def test_any_fault_of_the_reader_is_listed(folder, scorer, monkeypatch):
    monkeypatch.setattr("gradbench.predict.pictures.fit_picture", lambda *_: {}[3])
    assert scorer.score(folder / "pictures/000.png")["note"].tolist() == ["KeyError 3"]


def test_many_pictures_come_in_parts(folder, scorer, table):
    paths = sorted((folder / "pictures").iterdir()) * 6
    frames = list(scorer.stream(paths, scorer.choose(["gradient_oneclass"])))
    assert [len(frame) for frame in frames] == [1000, 200]
    assert frames[1]["file"].tolist() == [str(path) for path in paths[1000:]]
    again = np.concatenate([frame["gradient_oneclass"] for frame in frames]).reshape(6, 200)
    for row in again:
        np.testing.assert_allclose(row, table["gradient_oneclass"], rtol=1e-5)


def test_pictures_of_any_size_and_colours_go_through_the_door_of_the_data(scorer, tmp_path):
    draw = np.random.default_rng(0)
    grey = draw.integers(0, 256, (20, 30), dtype=np.uint8)
    picture = Image.fromarray(grey)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side
    picture.rotate(90, expand=True).save(tmp_path / "turned.png", exif=exif)
    picture.save(tmp_path / "grey.png")
    picture.convert("RGB").save(tmp_path / "rgb.bmp")
    picture.convert("RGBA").save(tmp_path / "alpha.png")
    picture.convert("P").save(tmp_path / "palette.gif")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    found = scorer.score(tmp_path, ["msp"])
    by_array = scorer.score(grey[None, None], ["msp"])
    assert found["note"].eq("").all()
    assert len(found) == 6
    np.testing.assert_allclose(found["msp"], by_array["msp"][0], rtol=1e-6)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (np.zeros((1, 8, 8), np.uint8), "a single image as images[None]"),
        (np.zeros((2, 8, 8, 3), np.uint8), "transpose(0, 3, 1, 2)"),
        (np.zeros((0, 1, 8, 8), np.uint8), "with 1 or 3 channels, at least one image"),
        (np.zeros((2, 1, 8, 8), np.int64), "give uint8, or floats in [0, 1]"),
        (np.full((2, 1, 8, 8), 255.0), "float images from 255 to 255"),
        (np.full((2, 1, 8, 8), -0.1), "not normalised"),
        (torch.full((2, 1, 8, 8), torch.nan), "float images from nan"),
        (torch.zeros((2, 1, 9, 9)), "the network takes (1, 8, 8)"),
        ([np.zeros((1, 8, 8))], "images are of type ndarray: give an array"),
        (torch.zeros(2, 1, 8, 8).to_sparse(), "a tensor that holds no plain numbers"),
        (torch.zeros(2, 1, 8, 8, device="meta"), "a tensor that holds no plain numbers"),
        (Image.new("L", (8, 8)), "images are of type Image: give an array"),
        ([], "no pictures found (nothing named)"),
        ("~no such user/a.png", "there is no user of that name"),
        ("n" * 300, "that can be looked at (File name too long)"),
        ("a\nb\x1b[1m.png", r"there is no file or folder a\nb\x1b[1m.png"),
        ("nowhere", "there is no file or folder nowhere"),
    ],
)
def test_images_that_are_refused(scorer, images, words):
    with pytest.raises(GradbenchError) as told:
        scorer.score(images)
    assert words in str(told.value)
    assert "\n" not in str(told.value)


def test_without_hold_out_images_there_are_scores_and_no_verdicts(folder, tmp_path):
    words = [w for w in TINY if not w.startswith(("detectors", "store"))]
    words += ["detectors=[msp]", f"store={folder / 'store'}", "model.hold_out=0"]
    ran = gradbench("run", *words, cwd=tmp_path)
    assert ran.code == 0, ran.err
    found = package.load(tmp_path / "run").score(folder / "pictures")
    assert found["msp"].notna().all()
    assert found["verdict_msp"].eq("").all()
    told = gradbench("score", "run", str(folder / "pictures"), cwd=tmp_path).out
    assert "no verdicts: the run had no hold-out" in told


def test_a_run_without_any_challenge_keeps_the_detectors_that_need_none(folder, tmp_path):
    words = [w for w in TINY if not w.startswith(("detectors", "store", "challenges"))]
    words += ["detectors=[gradient_logistic,knn,msp]", "challenges=[svhn]"]
    ran = gradbench("run", *words, f"store={folder / 'store'}", cwd=tmp_path)
    assert ran.code == 0, ran.err
    scorer = package.load(tmp_path / "run")
    assert scorer.detectors == ("knn", "msp")
    assert scorer.score(folder / "pictures")["knn"].notna().all()


def test_other_shapes_are_resampled_as_pictures_are(scorer):
    draw = np.random.default_rng(1)
    colour = draw.integers(0, 256, (3, 3, 12, 10), dtype=np.uint8)
    found = scorer.score(colour, ["msp"])
    small = np.stack([
        np.asarray(Image.fromarray(one.transpose(1, 2, 0)).convert("L")
                   .resize((8, 8), Image.Resampling.BILINEAR))[None]
        for one in colour
    ])  # fmt: skip
    np.testing.assert_allclose(found["msp"], scorer.score(small, ["msp"])["msp"], rtol=1e-6)


def test_names_that_are_no_text_and_linked_folders_and_other_files(folder, tmp_path):
    good = sorted((folder / "pictures").iterdir())[0]
    (tmp_path / "p").mkdir()
    bare = os.path.join(os.fsencode(tmp_path / "p"), b"caf\xe9.png")
    Path(os.fsdecode(bare)).write_bytes(good.read_bytes())
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "a.png").write_bytes(good.read_bytes())
    (tmp_path / "p" / "more").symlink_to(tmp_path / "linked")
    (tmp_path / "p" / "notes.txt").touch()
    out = tmp_path / "scores.csv"
    ran = gradbench("score", str(folder / "run"), str(tmp_path / "p"), "--out", str(out))
    assert ran.code == 0, ran.err
    assert "1 other file is passed over" in ran.out
    found = pandas.read_csv(out)["file"].map(lambda name: Path(name).name).tolist()
    assert found == ["caf\\xe9.png", "a.png"]


def test_grey_of_more_bits_is_scored_once_it_is_said_how_many(folder, scorer, tmp_path):
    good = sorted((folder / "pictures").iterdir())[0]
    pixels = np.asarray(Image.open(good)).astype(np.uint16)
    Image.fromarray(pixels * 16).save(tmp_path / "a.png")
    note = scorer.score(tmp_path / "a.png", ["msp"])["note"].item()
    assert "no value above" in note
    told = scorer.score(tmp_path / "a.png", ["msp"], bits=12)["probability"].item()
    assert told == pytest.approx(scorer.score(good, ["msp"])["probability"].item(), abs=0.02)
    words = (str(folder / "run"), str(tmp_path / "a.png"), "--out", str(tmp_path / "x.csv"))
    assert gradbench("score", *words, "--bits", "12").code == 0
    assert "--bits 99: write how many" in gradbench("score", *words, "--bits", "99").err
