"""Configuration: finding files, unfolding lists, and saying what is wrong before work starts."""

import copy
from functools import cache

import pytest
import torch
import yaml

from gradbench.backbones.devices import find_device
from gradbench.challenges.corruptions.noise import GaussianNoise
from gradbench.challenges.other_set import OtherSet
from gradbench.config import GROUPS, compose, expand, group_files, load_member
from gradbench.errors import GradbenchError
from gradbench.run.experiment import build_experiment
from gradbench.support.instantiate import instantiate

NOISE = "gradbench.challenges.corruptions.noise.GaussianNoise"
FGSM = "gradbench.challenges.attacks.projected.FGSM"
OTHER_SET = "gradbench.challenges.other_set.OtherSet"


@pytest.fixture
def mine(tmp_path):
    """Return a folder of a user's own files: a member, a shadowed one, suites, broken ones."""
    files = {
        "challenge/mild.yaml": f"_target_: {NOISE}\nstrengths: [0.01]",
        "challenge/fgsm.yaml": f"_target_: {FGSM}\nepsilon: 0.5",
        "challenge/pair.yaml": "members: [mild, {use: fgsm, epsilon: 0.1, name: weak}]",
        "challenge/nest.yaml": "members: [pair, patches]",
        "challenge/round.yaml": "members: [mild, around]",
        "challenge/around.yaml": "members: [round]",
        "challenge/broken.yaml": "a: [1, 2",
        "challenge/list.yaml": "- a\n- b",
        "challenge/empty.yaml": "description: has no class",
        "detector/nowhere.yaml": "_target_: gradbench.nowhere.Detector",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@cache
def _quickstart():
    return compose(["experiment=quickstart"])


@pytest.fixture
def config():
    return copy.deepcopy(_quickstart())


def error(function, *arguments) -> str:
    with pytest.raises(GradbenchError) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# files


@pytest.mark.parametrize("group", GROUPS)
def test_every_file_of_a_group_is_read_and_described(group):
    files = group_files(group)
    assert files
    # settings of a launcher refer to those of the run, so that Hydra alone reads them whole
    for name in files:
        assert isinstance(load_member(group, name, resolve=group != "launcher"), dict)


def test_folders_of_the_user_come_first(mine):
    assert load_member("challenge", "fgsm")["epsilon"] == 0.05
    assert load_member("challenge", "fgsm", [mine])["epsilon"] == 0.5
    assert {"mild", "patches"} <= set(group_files("challenge", [mine]))
    assert "mild" not in group_files("challenge")


def test_a_member_that_is_not_there(mine):
    text = error(load_member, "detector", "gradiant")
    assert text.startswith("no detector named 'gradiant': did you mean gradient")
    few = error(load_member, "protocol", "group")
    assert few.startswith("no protocol named 'group': did you mean grouped")
    assert "transfer" in few


def test_files_that_are_no_mapping(mine):
    with pytest.raises(GradbenchError, match=r"broken.yaml is not a valid configuration"):
        load_member("challenge", "broken", [mine])
    assert "holds no mapping" in error(load_member, "challenge", "list", [mine])


# lists


def test_names_are_expanded_in_order():
    found = expand("challenge", ["patches", "fgsm"])
    assert [name for name, _ in found] == ["patches", "fgsm"]
    assert found[1][1]["epsilon"] == 0.05
    assert expand("challenge", "fgsm") == [found[1]]
    assert expand("challenge", None) == expand("challenge", []) == []


def test_a_mapping_changes_settings_and_may_rename():
    entries = ["fgsm", {"use": "fgsm", "epsilon": 0.1, "name": "fgsm_strong"}]
    found = dict(expand("challenge", entries))
    assert {name: content["epsilon"] for name, content in found.items()} == {
        "fgsm": 0.05,
        "fgsm_strong": 0.1,
    }
    assert entries[1] == {"use": "fgsm", "epsilon": 0.1, "name": "fgsm_strong"}
    assert expand("challenge", {"use": "fgsm", "epsilon": 0.2})[0][1]["epsilon"] == 0.2


def test_suites_are_unfolded_also_inside_each_other(mine):
    found = dict(expand("challenge", ["nest"], [mine]))
    assert list(found) == ["mild", "weak", "patches"]
    assert found["weak"]["epsilon"] == 0.1


@pytest.mark.parametrize(
    ("entries", "text"),
    [
        (["fgsm", "fgsm"], "challenges: 'fgsm' stands there twice; give one a name: of its own"),
        (["pair", "mild"], "challenges: 'mild' stands there twice"),
        (["pair", {"use": "fgsm", "name": "weak"}], "challenges: 'weak' stands there twice"),
        (["fgms"], "no challenge named 'fgms': did you mean fgsm"),
        ([{"use": "fgms"}], "no challenge named 'fgms': did you mean fgsm"),
        ([{"epsilon": 0.1}], "names no member; write {use: NAME"),
        (["round"], "the suite 'round' of challenges contains itself"),
        ([5], "no challenge named '5'"),
    ],
)
def test_lists_that_are_refused(mine, entries, text):
    assert text in error(expand, "challenge", entries, [mine])


# objects


def test_instantiate_gives_the_settings_to_the_class(mine):
    made = instantiate("challenge", "mild", load_member("challenge", "mild", [mine]))
    assert isinstance(made, GaussianNoise)
    assert made.strengths == (0.01,)


@pytest.mark.parametrize(
    ("group", "content", "text"),
    [
        ("challenge", {"description": "x"}, "configs/challenge/it.yaml names no _target_"),
        ("detector", {"_target_": "gradbench.nowhere.D"}, "gradbench.nowhere.D cannot be imported"),
        ("challenge", {"_target_": OTHER_SET}, "challenge it needs a value for dataset"),
        (
            "challenge",
            {"_target_": NOISE, "strenghts": [1]},
            "no setting of challenge it named 'strenghts': did you mean strengths",
        ),
        (
            "challenge",
            {"_target_": NOISE, "strengths": 0.1},
            "challenge it strengths=0.1: write a list of numbers or null",
        ),
        (
            "challenge",
            {"_target_": NOISE, "table": "imagnet"},
            "no table of constants named 'imagnet': did you mean imagenet",
        ),
    ],
)
def test_objects_that_cannot_be_built(group, content, text):
    assert text in error(instantiate, group, "it", content)


# composing


def test_compose_resolves_everything(config):
    assert config["name"] == "quickstart"
    assert config["out"] == "outputs/quickstart"
    assert config["dataset"]["name"] == "digits"
    assert config["training"]["epochs"] == 20
    assert config["training"]["lr"] == 0.1


def test_compose_with_overrides_and_a_folder_of_the_user(tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "own.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /dataset: digits\nname: own\n"
        "detectors: [msp]\n"
    )
    config = compose(["experiment=own", "backbone=small_cnn", "seeds=[1,2]"], [tmp_path])
    assert config["name"] == "own"
    assert config["backbone"]["name"] == "small_cnn"
    assert build_experiment(config, [tmp_path]).seeds == (1, 2)


def test_files_of_the_user_take_the_place_of_built_in_ones(tmp_path):
    net = load_member("backbone", "small_cnn")
    first, second = tmp_path / "my, first", tmp_path / "second"
    for folder, width in ((first, 7), (second, 9)):
        (folder / "backbone").mkdir(parents=True)
        (folder / "backbone/small_cnn.yaml").write_text(yaml.dump(net | {"width": width}))
    digits = load_member("dataset", "digits") | {"holdout": 30}
    (second / "dataset").mkdir()
    (second / "dataset/digits.yaml").write_text(yaml.dump(digits))
    config = compose(["experiment=quickstart"], [first, second])
    assert (config["backbone"]["width"], config["dataset"]["holdout"]) == (7, 30)
    (first / "config.yaml").write_text("name: mine")
    assert "would replace the main configuration" in error(compose, [], [first])


@pytest.mark.parametrize("name", sorted(group_files("experiment")))
def test_every_experiment_can_be_read(name):
    experiment = build_experiment(compose([f"experiment={name}"]))
    assert experiment.name == name
    assert experiment.cells
    assert "logits" in experiment.reads
    for cell in experiment.cells:
        if isinstance(cell.challenge, OtherSet):
            assert experiment.other_dataset(cell.challenge).roles["challenge"]


# experiments


def test_an_experiment_as_objects(config):
    experiment = build_experiment(config)
    assert [cell.title for cell in experiment.cells] == [
        "patches",
        *(f"gaussian_noise {level}" for level in range(1, 6)),
        "fgsm",
    ]
    assert list(experiment.detectors) == ["msp", "gradient", "gradient_logistic"]
    assert experiment.reads == ["logits", "squared_norms/ones/bce"]
    assert experiment.seeds == (0,)
    assert (experiment.recipe.epochs, experiment.recipe.pad, experiment.recipe.flip) == (
        20,
        0,
        False,
    )
    assert experiment.detector("gradient") is not experiment.detector("gradient")


@pytest.mark.parametrize(
    ("keys", "levels"),
    [({"levels": [1, 3]}, [1, 3]), ({"level": 2}, [2]), ({"level": 4, "levels": [1]}, [4])],
)
def test_levels_choose_among_those_of_challenges_that_have_some(config, keys, levels):
    cells = build_experiment(config | keys).cells
    assert [c.level for c in cells if c.name == "gaussian_noise"] == levels
    assert [c.level for c in cells if c.name != "gaussian_noise"] == [None, None]


def test_seeds(config):
    assert build_experiment(config | {"seed": 3}).seeds == (3,)
    assert build_experiment(config | {"seed": 3, "seeds": [0, 5]}).seeds == (0, 5)


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("detectors", ["mps"], "no detector named 'mps': did you mean msp"),
        ("detectors", [], "detectors=[]: name at least one"),
        ("detectors", ["msp", "msp"], "detectors: 'msp' stands there twice"),
        ("detectors", [{"use": "gradient", "hiden": 3}], "did you mean hidden"),
        ("detectors", [{"use": "gradient", "normalisation": "x"}], "normalisation=x: choose"),
        ("detectors", [{"use": "gradient", "label": "onez"}], "no label named 'onez'"),
        ("detectors", [{"use": "gradient", "loss": "bec"}], "no loss named 'bec'"),
        ("challenges", ["patchs"], "no challenge named 'patchs': did you mean patches"),
        ("challenges", [{"use": "fgsm", "eps": 0.1}], "no setting of challenge fgsm named 'eps'"),
        ("challenges", [{"use": "fgsm", "epsilon": 2}], "fgsm epsilon=2: choose a value"),
        ("challenges", [{"use": "gaussian_noise", "strengths": []}], "strengths=[]: list one"),
        ("challenges", [{"use": "patches", "dataset": "ptches"}], "no dataset named 'ptches'"),
        ("levels", [6], "gaussian_noise has no level 6: choose from 1, 2, 3, 4, 5"),
        ("levels", [0], "gaussian_noise has no level 0"),
        (
            "level",
            "two",
            "level=two: write a whole number, at least 0, a list of whole",
        ),
        ("levels", [], "levels=[]: write whole numbers"),
        ("levels", [1, 1], "levels=[1, 1]: a number stands there twice"),
        ("seeds", [], "seeds=[]: write whole numbers from 0"),
        ("seeds", [0, 0], "seeds=[0, 0]: a number stands there twice"),
        ("seed", -1, "seed=-1: write a whole number, at least 0"),
        ("seed", True, "seed=true: write"),
        ("device", "gpu", "device=gpu is not here: choose auto, cpu"),
        ("limit", 9, "limit=9: write a whole number, at least 10"),
        ("limit", True, "limit=true: write a whole number"),
        ("limit", 12.5, "limit=12.5: write a whole number"),
        ("training.epochs", 0, "training.epochs=0: write a whole number, at least 1"),
        ("training.epochs", "many", "training.epochs=many: write a whole number"),
        ("training.schedule", "step", "training.schedule=step: write onecycle or cosine"),
        (
            "evaluation.replicates",
            10,
            "evaluation.replicates=10: write a whole number, at least",
        ),
        (
            "evaluation.confidence",
            1.0,
            "evaluation.confidence=1.0: write a number",
        ),
        (
            "evaluation.confidence",
            "high",
            "evaluation.confidence=high: write a number",
        ),
        ("challenge.source", "archiv", "challenge.source=archiv: did you mean archive? write"),
        ("challenge.seed", -1, "challenge.seed=-1: write a whole number, at least 0"),
        ("data.workers", 0, "data.workers=0: write a whole number, at least 1"),
        ("controls.limit", None, "controls.limit=null: write a whole number"),
        ("protocol.folds", 2, "folds"),
        ("protocol.split", "grupped", "grouped"),
    ],
)
def test_what_is_refused_before_any_work(config, key, value, text):
    place = config
    *groups, last = key.split(".")
    for group in groups:
        place = place[group]
    assert last in place
    place[last] = value
    assert text in error(build_experiment, config)


def test_a_detector_of_the_user_that_cannot_be_imported(config, mine):
    assert "cannot be imported" in error(
        build_experiment, config | {"detectors": ["nowhere"]}, [mine]
    )


def test_device():
    assert find_device("cpu") == torch.device("cpu")
    assert find_device("auto").type in ("cpu", "cuda", "mps")
    assert "device=tpu is not here" in error(find_device, "tpu")


def test_a_checkpoint_of_every_seed():
    words = ["experiment=quickstart", "seeds=[3,4]", "backbone.checkpoint='f-{seed}.pt'"]
    experiment = build_experiment(compose(words))
    assert [experiment.backbone(s)["checkpoint"] for s in (3, 4)] == ["f-3.pt", "f-4.pt"]
    assert "write {seed} where its seed stands" in error(
        build_experiment, compose([*words[:2], "backbone.checkpoint=f.pt"])
    )
