"""Products with the mean gradients of classes: exact, learned once, the same for every reader."""

import numpy as np
import pytest
import torch
from _dummies import CLASSES, images, network
from _runs import TINY, gradbench, kept, steps
from torch import nn

import gradbench as package
from gradbench.backbones.backbone import Backbone, digest
from gradbench.backbones.densenet import DenseNet
from gradbench.backbones.resnet import ResNet
from gradbench.backbones.small_cnn import SmallCNN
from gradbench.config import compose
from gradbench.errors import Faulty, GradbenchError
from gradbench.outputs import class_alignments
from gradbench.outputs import extract as module
from gradbench.outputs.base import Output
from gradbench.outputs.catalogue import built_in
from gradbench.outputs.distributed import DistributedReader
from gradbench.outputs.extract import extract
from gradbench.outputs.layers import last_stage
from gradbench.outputs.learned import Lessons
from gradbench.outputs.read import read_outputs
from gradbench.run.experiment import build_experiment
from gradbench.run.plan import plan
from gradbench.store import Store

LAST, ALL = "class_alignments/last_stage", "class_alignments/all"
NORMS = "squared_norms/ones/bce"


@pytest.fixture(scope="module")
def f():
    return network()


def pixels_of(data) -> torch.Tensor:
    return torch.from_numpy(data.images[slice(None)]).float() / 255


def lessons(f, store=None, count=120) -> Lessons:
    return Lessons(f, digest(f), images(count, seed=9), store)


def taught(f, *names, **more):
    return lessons(f, **more).taught(built_in().of_network(f, names))[0]


def single_gradients(f, data, names) -> list[torch.Tensor]:
    """Return the gradients of each image's largest logit, one image at a time, (N, *shape)."""
    parameters = [dict(f.named_parameters())[name] for name in names]
    rows = [torch.autograd.grad(f(image[None]).max(), parameters) for image in pixels_of(data)]
    return [torch.stack(column) for column in zip(*rows)]


@pytest.mark.parametrize("name", [LAST, ALL])
def test_norms_products_and_gram_are_those_of_single_gradients(name, f):
    learned_from, data = images(120, seed=9), images(10, seed=3)
    names = last_stage(f) if name == LAST else [n for n, _ in f.named_parameters()]
    bank = single_gradients(f, learned_from, names)
    means = [
        torch.stack([g[learned_from.labels == c].mean(0) for c in range(3)]).double() for g in bank
    ]
    (output,) = taught(f, name)
    found = read_outputs(f, pixels_of(data), [output])[name].double()
    assert found.shape == (10, 1 + 3, len(names))
    for column, (gradients, mean) in enumerate(zip(single_gradients(f, data, names), means)):
        rows = gradients.double().flatten(1)
        lengths = rows.norm(dim=1, keepdim=True) * mean.flatten(1).norm(dim=1)
        torch.testing.assert_close(found[:, 0, column], rows.square().sum(1), rtol=1e-4, atol=1e-9)
        products = rows @ mean.flatten(1).T
        assert ((found[:, 1:, column] - products).abs() <= 1e-4 * lengths + 1e-9).all()
    grams = torch.stack([m.flatten(1) @ m.flatten(1).T for m in means])
    torch.testing.assert_close(output.learned["gram"], grams, rtol=1e-4, atol=1e-7)


def test_they_share_the_pass_with_logits_and_features_and_can_stand_beside_norms(f):
    x = pixels_of(images(20))
    plain = ["features", "layer_means", "logits"]
    both = read_outputs(f, x, [*taught(f, LAST, *plain)])
    alone = read_outputs(f, x, taught(f, LAST)) | read_outputs(f, x, plain)
    beside = read_outputs(f, x, [*taught(f, LAST, NORMS)])
    for name in both:
        torch.testing.assert_close(both[name], alone[name], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(beside[LAST], both[LAST], rtol=1e-5, atol=1e-6)


def test_a_class_without_images_has_no_direction(f):
    data = images(90, seed=9)
    some = Lessons(f, "", data.select(np.flatnonzero(data.labels != 1)), None)
    (output,), _ = some.taught(built_in().of_network(f, [ALL]))
    found = read_outputs(f, pixels_of(images(5)), [output])[ALL]
    assert (found[:, 2] == 0).all()
    assert (found[:, 1] != 0).any()
    assert (output.learned["gram"][:, 1] == 0).all()


def test_it_learns_once_and_from_no_more_images_than_it_names(f, store, monkeypatch):
    seen = []
    learn = class_alignments.ClassAlignments.learn
    monkeypatch.setattr(
        class_alignments.ClassAlignments,
        "learn",
        lambda self, f, data: (seen.append(np.bincount(data.labels)), learn(self, f, data))[1],
    )
    few = class_alignments.ClassAlignments("all", images=60)
    few.name = ALL
    data = images(7)
    first = lessons(f, store)
    extract(f, digest(f), data, first.named([few]), store, lessons=first)
    assert [s.tolist() for s in seen] == [[20, 20, 20]]
    again = lessons(f, store)
    assert again.taught([few])[0][0].learned.keys() == first.taught([few])[0][0].learned.keys()
    extract(f, digest(f), data, again.named([few]), store, lessons=again)
    assert len(seen) == 1
    other = Lessons(f, digest(f), images(90, seed=5), store)
    named = [one.named([few])[0].learned_key for one in (first, again, other)]
    assert named[0] == named[1] != named[2]
    extract(f, digest(f), data, other.named([few]), store, lessons=other)
    assert len(seen) == 2
    assert steps({(key.step, key.digest) for key in store.made}) == {"learned": 2, "outputs": 2}


def test_unlearned_it_is_refused(f):
    with pytest.raises(GradbenchError, match="read before it has learned"):
        read_outputs(f, pixels_of(images(2)), [ALL])


def test_means_that_are_too_large_are_refused(f, monkeypatch):
    monkeypatch.setattr(class_alignments, "MOST", 3 * sum(p.numel() for p in f.parameters()) - 1)
    with pytest.raises(GradbenchError, match=r"of 3 classes are too large.*choose last_stage"):
        taught(f, ALL)
    taught(f, LAST)


def test_labels_that_f_does_not_know_are_refused(f):
    data = images(30)
    data.labels[4] = 3
    with pytest.raises(GradbenchError, match="labels from 0 to 3, f tells 3 classes apart"):
        Lessons(f, "", data, None).taught(built_in().of_network(f, [ALL]))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("class_alignments/first", "all, last_stage"),
        ("class_alignments", "write class_alignments/<"),
    ],
)
def test_unknown_tensors_are_refused(name, told):
    with pytest.raises(GradbenchError, match=told):
        built_in().find(name)


def test_two_processes_read_the_same(pool, f, tmp_path, monkeypatch):
    data, one, two = images(30), Store(tmp_path / "one"), Store(tmp_path / "two")
    names = [LAST, ALL, "logits"]
    here, there = lessons(f, one), lessons(f, two)
    outputs = here.named(built_in().of_network(f, names))
    alone = extract(f, digest(f), data, outputs, one, lessons=here)
    there.taught(outputs)
    monkeypatch.setattr(module, "compute_outputs", lambda *_: pytest.fail("in this process"))
    reader = DistributedReader(pool, f, digest(f))
    found = extract(f, digest(f), data, outputs, two, reader=reader, lessons=there)
    assert all(torch.equal(found[name], alone[name]) for name in names)
    some = extract(f, digest(f), images(5), outputs[-1:], two, reader=reader, lessons=there)
    assert some["logits"].shape == (5, 3)


STAGES = {
    "resnet": (ResNet(18, 3, width=4), "layer4.", 15),
    "densenet": (DenseNet(classes=3, depth=10, growth=4), ("block3.", "bn1."), 8),
    "small_cnn": (SmallCNN(3, 3, 4), ("conv3.", "bn3."), 3),
    "without layers": (nn.Sequential(nn.Flatten(), nn.Linear(768, 3)), "1.", 2),
    "one layer": (nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(784, 3)), "0.", 2),
}


@pytest.mark.parametrize("name", STAGES)
def test_last_stage(name):
    net, starts, count = STAGES[name]
    f = Backbone(net, [0.5] * 3, [0.2] * 3, CLASSES, (3, 16, 16)).eval()
    found = [n.removeprefix("network.") for n in last_stage(f)]
    assert len(found) == count
    assert all(n.startswith(starts) for n in found)
    expected = [n for n, _ in net.named_parameters() if n.startswith(starts)]
    assert found == expected


def test_a_last_stage_is_more_than_a_normalisation():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Flatten(),
                        nn.Linear(576, 3))  # fmt: skip
    f = Backbone(
        net, [0.5] * 3, [0.2] * 3, CLASSES, (3, 16, 16), feature_layers=("0", "1", "2")
    ).eval()
    assert [n.removeprefix("network.") for n in last_stage(f)] == [
        *("1.weight", "1.bias", "2.weight", "2.bias")
    ]


class MeanPixel(Output):
    """An output of a user's own that learns."""

    learns_from = 30

    def learn(self, backbone, images):
        return {"mean": pixels_of(images).mean((0, 2, 3))}

    def read(self, context):
        return context.images.mean((2, 3)) - self.learned["mean"].to(context.images)


class LearnsNaN(MeanPixel):
    def learn(self, backbone, images):
        return {"mean": torch.full((1,), torch.nan)}


class LearnsBadly(MeanPixel):
    def learn(self, backbone, images):
        raise ValueError("no idea")


def test_an_output_of_the_users_own_may_learn(f, store):
    own = MeanPixel()
    own.name = "mean_pixel"
    first, data = lessons(f, store), images(12)
    values = extract(f, digest(f), data, first.named([own]), store, lessons=first)["mean_pixel"]
    mean = first.taught([own])[0][0].learned["mean"]
    torch.testing.assert_close(values, pixels_of(data).mean((2, 3)) - mean)


@pytest.mark.parametrize(
    ("kind", "told"), [(LearnsNaN, "finite numbers is due"), (LearnsBadly, "no idea")]
)
def test_a_fault_in_it_leaves_out_this_output_alone(f, store, kind, told):
    own = kind()
    own.name = "own"
    first = lessons(f, store)
    outputs = [*first.named([own]), *built_in().of_network(f, ["logits"])]
    values = extract(f, digest(f), images(12), outputs, store, lessons=first)
    assert values["logits"].shape == (12, 3)
    with pytest.raises(Faulty, match=told):
        values["own"]


DETECTORS = "detectors=[class_cosine,class_alignments_knn,msp]"
WORDS = (*(w for w in TINY if not w.startswith("detectors")), DETECTORS)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("learned")
    ran = gradbench("run", *WORDS, "seeds=[0,1]", cwd=folder)
    assert ran.code == 0, ran.err
    return folder


def planned(folder, *words):
    lines = plan(build_experiment(compose([*WORDS, *words])), Store(folder / "store"))
    return [line for line in lines if line.step == "learned"]


@pytest.mark.slow
def test_a_run_learns_once_for_a_network_and_goes_on_from_there(finished):
    before = kept(finished)
    assert steps(before)["learned"] == 2
    ran = gradbench("run", *WORDS, "seeds=[0,1]", "out=again", cwd=finished)
    assert ran.code == 0, ran.err
    assert kept(finished) == before


@pytest.mark.slow
def test_a_plan_lists_what_will_be_learned_and_makes_nothing(finished, tmp_path):
    (line,) = planned(tmp_path)
    assert line.what == f"{LAST}, 1000 images"
    assert (line.parts, line.present) == (1, 0)
    assert line.seconds > 0
    assert not list(tmp_path.iterdir())
    (line,) = planned(finished)
    assert (line.present, line.seconds) == (1, 0)


@pytest.mark.slow
def test_a_finished_run_scores_new_images_as_it_did_its_own(finished):
    experiment = build_experiment(compose(WORDS))
    from gradbench.run.context import clean_images

    normal = clean_images(experiment).normal
    scorer = package.load(finished / "run", seed=0)
    found = scorer.score(normal.images[slice(None)], ["class_cosine", "class_alignments_knn"])
    from safetensors.numpy import load_file

    scores = [
        load_file(path / "scores.safetensors")["scores"]
        for path, manifest in Store(finished / "store").products()
        if path.parent.name == "image_scores"
        and manifest["about"]["detector"] == "class_cosine"
        and manifest["about"]["images"] == len(normal)
    ]
    assert any(np.allclose(found["class_cosine"], one, rtol=1e-6) for one in scores)
    assert found["class_alignments_knn"].notna().all()


@pytest.mark.slow
def test_a_run_without_the_tensors_is_refused_in_a_sentence(finished, tmp_path):
    import shutil

    shutil.copytree(finished / "run/model/s0", tmp_path / "model/s0")
    for path in (tmp_path / "model/s0/outputs").iterdir():
        path.unlink()
    scorer = package.load(tmp_path, seed=0)
    with pytest.raises(GradbenchError, match="safetensors is missing"):
        scorer.score(np.zeros((1, 1, 8, 8), np.uint8), ["class_cosine"])
    assert len(scorer.score(np.zeros((1, 1, 8, 8), np.uint8), ["msp"])) == 1
