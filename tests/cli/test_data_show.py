"""`gradbench data show`: the pictures hold the images that they say they show."""

import json

import numpy as np
import pytest
import torch
from _cure import plant
from _panels import places
from _runs import gradbench, one_sentence
from PIL import Image

from gradbench.backbones.checkpoint import save_checkpoint
from gradbench.backbones.small_cnn import SmallCNN
from gradbench.config import compose
from gradbench.data.catalogue import build_dataset
from gradbench.data.dataset import DataSettings
from gradbench.report.gallery import amplification, amplified
from gradbench.run.challenge_images import setup
from gradbench.run.experiment import build_experiment


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch):
    monkeypatch.setenv("GRADBENCH_DATA", "data")
    monkeypatch.setenv("GRADBENCH_STORE", "store")
    monkeypatch.delenv("GRADBENCH_OFFLINE", raising=False)


def picture(*words: str, cwd) -> np.ndarray:
    """Run the command and return the pixels that it wrote to x.png."""
    ran = gradbench("data", "show", *words, "out=x.png", "device=cpu", cwd=cwd)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == "written to x.png\n"
    return np.asarray(Image.open(cwd / "x.png").convert("RGB"))


def save(path, count=40, size=32, classes=10, seed=0):
    """Write noise images as arrays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    np.savez(path, images=pixels, labels=np.arange(count) % classes)
    return pixels.transpose(0, 3, 1, 2)


def columns(found) -> list[int]:
    return [x for x, _ in found]


def test_a_set_is_shown_class_by_class(tmp_path):
    images = save(tmp_path / "data/cifar10/test.npz", 30)
    shown = picture("cifar10", "n=3", cwd=tmp_path)
    found = [places(shown, image) for image in images]
    assert all(len(at) == 1 for at in found)
    rows = [at[0] for at in found]
    for label in range(10):
        mine = [rows[i] for i in range(label, 30, 10)]
        assert len({y for _, y in mine}) == 1, "images of a class stand in a row"
        assert columns(mine) == sorted(columns(mine))
    some = picture("cifar10", "n=1", "seed=1", cwd=tmp_path)
    other = picture("cifar10", "n=1", "seed=2", cwd=tmp_path)
    assert sum(len(places(some, image)) for image in images) == 10
    assert not np.array_equal(some, other)


def test_the_usual_place(tmp_path):
    ran = gradbench("data", "show", "digits", cwd=tmp_path)
    assert ran.out == "written to outputs/data/digits.png\n"
    ran = gradbench("data", "show", "digits", "challenge=gaussian_noise", "level=1", "n=1",
                    cwd=tmp_path)  # fmt: skip
    assert ran.out == "written to outputs/data/digits-gaussian_noise.png\n"
    left = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*"))
    assert left == ["outputs", "outputs/data", "outputs/data/digits-gaussian_noise.png",
                    "outputs/data/digits.png"]  # fmt: skip


def test_own_images_keep_their_size(tmp_path):
    for name, size in (("cat", (40, 20)), ("dog", (8, 8))):
        (tmp_path / "mine" / name).mkdir(parents=True)
        noise = np.random.default_rng(1).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "mine" / name / "a.png")
    shown = picture("folder", "dataset.path=mine", cwd=tmp_path)
    for name in ("cat", "dog"):
        image = np.asarray(Image.open(tmp_path / "mine" / name / "a.png")).transpose(2, 0, 1)
        assert len(places(shown, image)) == 1


def of_digits(*overrides: str, rows):
    """Return test digits, and a function from (cell number, network) to their challenge."""
    experiment = build_experiment(compose(["dataset=digits", "device=cpu", *overrides]))
    clean = build_dataset("digits").load("test", DataSettings("data")).select(rows)

    def made(number, f=None):
        return setup(experiment, experiment.cells[number], f).make(clean, np.arange(len(clean)))

    return clean, made


def test_a_corruption_has_a_column_for_each_level(tmp_path):
    shown = picture("digits", "challenge=gaussian_noise", "levels=[1,5]", "n=10", cwd=tmp_path)
    everything = build_dataset("digits").load("test", DataSettings("data"))
    seen = [row for row in range(len(everything)) if places(shown, everything.images[row])]
    assert sorted(everything.labels[seen]) == list(range(10)), "one of each class"
    clean, made = of_digits("challenges=[gaussian_noise]", "levels=[1,5]", rows=seen)
    for number in range(10):
        at = [places(shown, images[number]) for images in (clean.images, made(0), made(1))]
        assert [len(found) for found in at] == [1, 1, 1]
        (x, y), (first, up), (second, down) = (found[0] for found in at)
        assert y == up == down
        assert (first - x, second - first) == (136, 136)


def test_other_settings_of_a_challenge_and_other_seeds(tmp_path):
    changed = "{use: gaussian_noise, name: strong, strengths: [0.5]}"
    shown = picture("digits", f"challenge={changed}", "n=1", "challenge.seed=7", cwd=tmp_path)
    everything = build_dataset("digits").load("test", DataSettings("data"))
    (row,) = (r for r in range(len(everything)) if places(shown, everything.images[r]))
    _, made = of_digits(f"challenges=[{changed}]", "challenge.seed=7", rows=[row])
    assert len(places(shown, made(0)[0])) == 1
    _, made = of_digits(f"challenges=[{changed}]", "challenge.seed=8", rows=[row])
    assert not places(shown, made(0)[0])


def test_a_suite_has_a_row_for_each_family(tmp_path):
    images = save(tmp_path / "data/cifar10/test.npz", 10, classes=1)
    shown = picture("cifar10", "challenge=papers8", "levels=[1]", cwd=tmp_path)
    found = [places(shown, image) for image in images]
    assert sorted(map(len, found)) == [0] * 9 + [8]


def test_published_corruptions_are_shown_where_they_are_here(tmp_path, monkeypatch):
    monkeypatch.setattr("gradbench.challenges.archive.EACH", 20)
    images = save(tmp_path / "data/cifar10/test.npz", 20)
    (tmp_path / "data/CIFAR-10-C").mkdir()
    levels = [
        np.clip(images.astype(int) // level, 0, 255).astype(np.uint8) for level in range(2, 7)
    ]
    arrays = np.concatenate(levels).transpose(0, 2, 3, 1)
    np.save(tmp_path / "data/CIFAR-10-C/fog.npy", np.ascontiguousarray(arrays))
    np.save(tmp_path / "data/CIFAR-10-C/labels.npy", np.tile(np.arange(20) % 10, 5))
    shown = picture("cifar10", "challenge=fog", "n=3", cwd=tmp_path)
    seen = [row for row in range(20) if places(shown, images[row])]
    assert len(seen) == 3
    for row in seen:
        assert all(len(places(shown, level[row])) == 1 for level in levels)
    made = picture("cifar10", "challenge=fog", "n=3", "challenge.source=generated", cwd=tmp_path)
    assert not any(places(made, level[row]) for row in seen for level in levels)


def test_images_that_are_not_made_of_clean_ones(tmp_path):
    shown = picture("digits", "challenge=uniform_noise_images", "n=4", cwd=tmp_path)
    everything = build_dataset("digits").load("test", DataSettings("data"))
    assert not any(places(shown, image) for image in everything.images)
    assert shown.shape[1] > 4 * 128


def test_images_of_cure_tsr_beside_their_twins(tmp_path):
    plant(tmp_path / "data", kinds=range(1, 3), each=2, challenges={"darkening": (1, 3)})
    words = ("cure_tsr", "challenge=cure_tsr_darkening", "levels=[1,3]", "n=4", "data.root=data")
    shown = picture(*words, cwd=tmp_path)
    clean = build_dataset("cure_tsr").load("test", DataSettings(tmp_path / "data"))
    assert all(len(places(shown, image)) == 1 for image in clean.images[:])


def test_another_set_is_shown_before_and_after(tmp_path):
    from gradbench.data.picture import Resampling
    from gradbench.data.resample import resize_pixels

    images = save(tmp_path / "data/tiny_imagenet/test.npz", 6, size=64, classes=3)
    shown = picture("cifar10", "challenge=tiny_imagenet", "n=6", cwd=tmp_path)
    small = resize_pixels(images, (3, 32, 32), Resampling())
    for before, after in zip(images, small):
        (left, up), (right, down) = (*places(shown, before), *places(shown, after))
        assert (right - left, down - up) == (136, 0)


@pytest.fixture
def network(tmp_path):
    """A small untrained network for the digits, as a checkpoint."""
    torch.manual_seed(3)
    inner = SmallCNN(10, 1, 16).eval()
    about = {"network": {"arguments": {"width": 16}}}
    save_checkpoint(tmp_path / "f.safetensors", inner, about)
    return inner


ATTACK = ("digits", "backbone=small_cnn", "backbone.checkpoint=f.safetensors")


def test_an_attack_shows_clean_perturbation_and_attacked(tmp_path, network):
    words = ("challenge={use: fgsm, epsilon: 0.05}", "n=5")
    shown = picture(*ATTACK, *words, cwd=tmp_path)
    everything = build_dataset("digits").load("test", DataSettings("data"))
    seen = [row for row in range(len(everything)) if places(shown, everything.images[row])]
    assert len(seen) == 5
    clean = everything.images[seen]
    pixels = torch.from_numpy(clean).float().div(255).requires_grad_()
    mean, std = 0.3055, 0.3760
    logits = network((pixels - mean) / std)
    loss = torch.nn.functional.cross_entropy(
        logits, torch.from_numpy(everything.labels[seen]), reduction="sum"
    )
    slope = torch.autograd.grad(loss, pixels)[0].numpy()
    # a budget of 12.75 grey levels is cut to 12 on the grid
    attacked = np.clip(clean + np.where(slope >= 0, 12, -12), 0, 255).astype(np.uint8)
    change = attacked.astype(float) - clean
    assert amplification(change) == 10
    for old, new, difference in zip(clean, attacked, change):
        at = [places(shown, image) for image in (old, amplified(difference, 10), new)]
        assert [len(found) for found in at] == [1, 1, 1]
        assert [x - at[0][0][0] for ((x, _),) in at] == [0, 136, 272]
        assert len({y for ((_, y),) in at}) == 1
    assert not (tmp_path / "store").exists()


def test_a_trained_network_is_found_in_the_store(tmp_path):
    words = ("dataset=digits", "backbone=small_cnn", "training.epochs=1", "device=cpu")
    fault = one_sentence(
        gradbench("data", "show", "digits", "challenge=fgsm", *words[1:], cwd=tmp_path)
    )
    assert fault.startswith(
        "fgsm needs a trained network and the store has no small_cnn for digits"
    )
    assert "give backbone.checkpoint=FILE" in fault
    assert not (tmp_path / "store").exists()
    ran = gradbench(
        "run", *words, "challenges=[fgsm]", "limit=20", "detectors=[msp]", "out=run",
        "evaluation.replicates=100", "controls.random_labels=false",
        "controls.random_split=false", cwd=tmp_path,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    before = {path: path.stat().st_size for path in (tmp_path / "store").rglob("*")}
    picture("digits", "challenge=fgsm", "n=2", *words[1:], cwd=tmp_path)
    assert before == {path: path.stat().st_size for path in (tmp_path / "store").rglob("*")}


def test_several_attacks(tmp_path, network):
    shown = picture(*ATTACK, "challenge=[fgsm,bim]", "n=1", cwd=tmp_path)
    everything = build_dataset("digits").load("test", DataSettings("data"))
    assert sum(len(places(shown, image)) for image in everything.images) == 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "data show : name one data set"),
        (("digits", "cifar10"), "data show digits cifar10: name one data set"),
        (("digis",), "no dataset named 'digis': did you mean digits"),
        (("svhn",), "svhn is not on this machine: `gradbench data fetch svhn` brings it"),
        (("scenes",), "scenes is not on this machine: put arrays at"),
        (("arrays",), "path is not set"),
        (("digits", "challenge=gausian_noise"), "no challenge named 'gausian_noise'"),
        (("digits", "challenge=svhn"), "svhn is not on this machine: `gradbench data fetch svhn`"),
        (("digits", "challenge=[patches,gaussian_noise]"), "patches and gaussian_noise are shown"),
        (("digits", "challenge=[]"), "challenge=: name a challenge"),
        (("digits", "challenge="), "challenge=: name a challenge"),
        (("digits", "challenge=gaussian_noise", "level=6"), "gaussian_noise has no level 6"),
        (("digits", "challenge=fgsm", "backbone.checkpoint=none"), "backbone.checkpoint=none:"),
        (("digits", "n=0"), "n=0: a whole number of images from 1 to 100"),
        (("digits", "n=-3"), "n=-3: a whole number of images from 1 to 100"),
        (("digits", "n=many"), "n=many: a whole number"),
        (("digits", "seed=-1"), "seed=-1: a whole number from 0"),
        (("digits", "out=x.jpg"), "out=x.jpg: name a file that ends in .png"),
        (("digits", "out=file/x.png"), "out=file/x.png cannot be written"),
        (("digits", "out=folder.png"), "out=folder.png: name a file that ends in .png"),
        (("digits", "limitt=3"), "no setting named 'limitt': did you mean limit"),
        (("digits", "--all"), "no option of data show named '--all'"),
    ],
)
def test_wrong_input_is_one_sentence_and_leaves_nothing(tmp_path, words, says):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.png").mkdir()
    out = () if any(word.startswith("out=") for word in words) else ("out=x.png",)
    assert one_sentence(gradbench("data", "show", *words, *out, cwd=tmp_path)).startswith(says)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.png"]


def test_help_and_the_composed_configuration(tmp_path):
    ran = gradbench("data", "show", "--help")
    assert ran.code == 0
    assert ran.out.startswith("usage: gradbench data show")
    ran = gradbench("data", "show", "digits", "challenge=fgsm", "--cfg", "job", cwd=tmp_path)
    assert "challenges:\n- fgsm\n" in ran.out
    assert json.dumps(sorted(p.name for p in tmp_path.iterdir())) == "[]"
