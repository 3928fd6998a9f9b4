import matplotlib
import numpy as np
import pytest
from made_rows import auroc, run_frame
from matplotlib.image import imread
from sklearn.metrics import auc

from gradbench.errors import GradbenchError
from gradbench.report import figures
from gradbench.report.contact_sheet import Panel, Row, contact_sheet
from gradbench.report.figures import roc_curve, stages
from gradbench.run.rows import frame

NAMES = [f"layer{i // 3}.{i % 3}.weight" for i in range(9)] + ["fc.weight", "fc.bias"]


def pair(seed, shift=2.0):
    draw = np.random.default_rng(seed)
    return draw.normal(0, 1, 80), draw.normal(shift, 1, 120)


def draw_histograms(path):
    figures.histograms(path, "Scores", {"svhn": pair(0), "noise 1": [pair(1), pair(2)]})


def draw_roc(path):
    figures.roc(
        path, "ROC", {f"set {i}": {"msp": pair(i), "gradient": [pair(i)]} for i in range(5)}
    )


def draw_profile(path):
    means = {"digits": np.logspace(-5, -1, 11), "noise 1": np.full(11, 1e-3), "zero": np.zeros(11)}
    figures.profile(path, "Profile", NAMES, means)


def draw_levels(path):
    figures.levels(path, "Levels", run_frame())


DRAWINGS = [draw_histograms, draw_roc, draw_profile, draw_levels]


@pytest.mark.parametrize("draw", DRAWINGS)
def test_a_picture_shows_something_and_has_the_same_bytes_again(draw, tmp_path, monkeypatch):
    draw(tmp_path / "a.png")
    with matplotlib.rc_context({"lines.linewidth": 9, "font.size": 20, "savefig.dpi": 50}):
        draw(tmp_path / "b.png")
    picture = imread(tmp_path / "a.png")
    assert picture.shape[1] >= 600
    assert picture[..., :3].std() > 0.05
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.filterwarnings("error")
def test_names_are_drawn_as_they_are(tmp_path):
    names = ("$a$", "$\\frac{", "a^b$_", "_x", "\x1b[31m", "\0", "\udcff", "日本", "n" * 100)
    path, title = tmp_path / "a.png", " ".join(names)
    figures.roc(path, title, {name: {name: [pair(1)]} for name in names})
    figures.histograms(path, title, {name: pair(0) for name in names})
    means = {name: np.array([1e-3, 2e-2]) for name in names}
    figures.profile(path, title, [f"{names[0]}.weight", f"{names[1]}.weight"], means)
    rows = [Row(name, [Panel(np.zeros((1, 8, 8), np.uint8), name)]) for name in names]
    contact_sheet(path, title, names, rows, names[:1])


def test_a_picture_names_no_software_and_no_date(tmp_path):
    draw_roc(tmp_path / "roc.png")
    content = (tmp_path / "roc.png").read_bytes()
    assert b"tEXt" not in content
    assert b"tIME" not in content


@pytest.mark.parametrize("draw", DRAWINGS)
def test_a_folder_that_is_not_there_is_named(draw, tmp_path):
    with pytest.raises(GradbenchError, match=r"absent/a\.png"):
        draw(tmp_path / "absent" / "a.png")


def test_scores_that_are_all_equal_or_infinite_can_be_drawn(tmp_path):
    odd = {"equal": (np.zeros(9), np.zeros(5)), "far": (np.arange(9.0), np.array([1.0, np.inf]))}
    figures.histograms(tmp_path / "a.png", "Scores", odd)
    assert imread(tmp_path / "a.png")[..., :3].std() > 0.05


def test_a_profile_of_the_in_distribution_set_alone_can_be_drawn(tmp_path):
    figures.profile(tmp_path / "a.png", "Profile", NAMES, {"digits": np.logspace(-5, -1, 11)})
    draw_profile(tmp_path / "b.png")
    alone, both = (imread(tmp_path / f"{name}.png") for name in "ab")
    assert len(alone) < len(both)  # nothing to compare with


def test_levels_of_several_networks_differ_from_those_of_one(tmp_path):
    one = [auroc("corruption", "fog", "msp", 60.0 + 5 * level, level=level) for level in (1, 2)]
    two = [
        auroc("corruption", "fog", "msp", 80.0 + 5 * level, level=level, seed=1) for level in (1, 2)
    ]
    leak = [row | {"role": "random_split", "value": 99.0} for row in one]
    drawn = {}
    for name, rows in {"one": one, "both": one + two, "leak": one + leak}.items():
        assert figures.levels(tmp_path / f"{name}.png", "Levels", frame(rows)) == 1
        drawn[name] = (tmp_path / f"{name}.png").read_bytes()
    assert drawn["both"] != drawn["one"]
    assert drawn["leak"] == drawn["one"]


def test_nothing_is_drawn_of_a_single_level(tmp_path):
    rows = frame([auroc("corruption", "fog", "msp", 60.0, level=3)])
    assert figures.levels(tmp_path / "a.png", "Levels", rows) == 0
    assert not (tmp_path / "a.png").exists()


def test_the_area_under_the_curve_is_the_auroc():
    normal, abnormal = pair(3, shift=1.0)
    normal, abnormal = normal.round(1), abnormal.round(1)  # with ties
    false, true = roc_curve([(normal, abnormal)])
    wins = (abnormal[:, None] > normal).mean() + (abnormal[:, None] == normal).mean() / 2
    assert auc(false, true) == pytest.approx(wins, abs=1e-12)


def test_curves_of_folds_are_averaged_and_never_pooled():
    folds = [(np.array([0.0, 1.0]), np.array([2.0, 3.0])), (np.array([10.0, 11.0]), [12.0, 13.0])]
    false, true = roc_curve([tuple(map(np.asarray, fold)) for fold in folds])
    assert auc(false, true) == pytest.approx(1.0)
    mixed = [folds[0], (np.array([1.0, 3.0]), np.array([0.0, 2.0]))]
    false, true = roc_curve(mixed)
    assert auc(false, true) == pytest.approx((1.0 + 0.25) / 2)


def test_stages_are_the_outer_modules_with_small_neighbours_joined():
    names = ["network.conv1.weight", "network.bn1.weight", "network.bn1.bias"]
    names += [f"network.layer{i}.{j}.weight" for i in (1, 2) for j in range(30)]
    names += ["network.fc.weight", "network.fc.bias"]
    assert [(s.name, s.first, s.last) for s in stages(names)] == [
        ("conv1, bn1", 0, 2),
        ("layer1", 3, 32),
        ("layer2", 33, 62),
        ("fc", 63, 64),
    ]


def test_stages_are_looked_for_within_a_module_that_holds_nearly_everything():
    names = [f"features.block{i}.{j}.weight" for i in range(3) for j in range(10)]
    found = stages([*names, "classifier.weight", "classifier.bias"])
    assert [s.name for s in found] == ["block0", "block1", "block2", "classifier"]


def test_a_network_of_bare_parameters_has_stages_too():
    assert [s.name for s in stages(["weight", "bias"])] == ["weight", "bias"]
