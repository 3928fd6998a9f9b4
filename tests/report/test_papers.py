"""The papers' tables: read from files, filled from hand-made runs, written, and checked."""

import csv
import re
from io import StringIO

import pytest
from _made_runs import TABLE, absent, measured, own_table, write_run

from gradbench.config import group_files
from gradbench.data.dataset import DataSettings
from gradbench.errors import GradbenchError
from gradbench.report.finished_run import find_runs
from gradbench.report.papers import document
from gradbench.report.papers.fill import fill, to_csv
from gradbench.report.papers.layout import Notes, panels
from gradbench.report.papers.missing import missing_runs, summary
from gradbench.report.papers.table import Measure, read_table, table_files
from gradbench.report.published import NAMING

OLD, NEW = "2026-01-01T00:00:00+0000", "2026-02-01T00:00:00+0000"
ROWS = [
    measured("svhn", "msp", 82.0),
    measured("svhn", "gradient", 99.5, lo=98.8, hi=100.0, note="exact one-sided lower bound"),
    measured("cifar100", "msp", 78.0),
    measured("cifar100", "gradient", 79.04),
    measured("svhn", "msp", 90.0, "aupr", side="in", half=0),
    measured("svhn", "msp", 70.0, "aupr_balanced", side="out", half=0),
    # numbers that must not be taken: another fold, split, side, control
    measured("svhn", "msp", 1.0, fold="0"),
    measured("svhn", "msp", 2.0, protocol="random", role="random_split"),
    measured("svhn", "msp", 3.0, "aupr", side="out"),
    measured("svhn", "msp", 4.0, role="identity", challenge_set="control"),
]


@pytest.fixture
def made(tmp_path):
    """Return a function that fills the user's table from the runs below `runs`."""
    dirs = [own_table(tmp_path / "own")]
    return lambda: fill(read_table("made", dirs), find_runs([tmp_path / "runs"]), dirs)


def cells(filled, in_dist, challenge, method, metric="auroc"):
    found = filled.cells
    for name, value in zip(NAMING[3:], (in_dist, "ood", challenge, "", method, "", metric)):
        found = found[found[name] == value]
    return found


def cell(*names):
    (row,) = cells(*names).to_dict("records")
    return row


def texts(filled):
    """Return (panel, row, line) -> cells, and (panel, row, line, "mark") -> mark of the line."""
    notes, found, before = Notes(), {}, ("", "")
    for panel, (grid,) in panels(filled.table, filled.cells, notes).items():
        for in_dist, challenge, line, *row in grid.rows:
            before = (in_dist or before[0], challenge or before[1])
            line, *mark = line.split(" [")
            found.setdefault((panel, *before, line), row)
            if mark:
                found[panel, *before, line, "mark"] = f"[{mark[0]}"
    return found, notes.lines()


# Files


def places(name, **columns):
    table = read_table(name)
    rows = table.printed
    for column, value in columns.items():
        rows = rows[rows[column] == value]
    return table.places[table.places["cell"] == rows.index[0]]


def test_numbers_are_measured_where_the_paper_did_or_where_that_can_be_had():
    found = places("ood", in_dist="CIFAR-10", challenge="LSUN", method="Ours", metric="auroc")
    assert list(found["method"].unique()) == ["gradient"]
    assert list(found["challenge"].unique()) == ["lsun_odin_resize", "lsun", "scenes"]
    assert list(found["preferred"].unique()) == ["", "lsun_odin_resize"]
    assert list(found["experiment"][:2]) == ["ood_cifar10", "ood_cifar10_far"]
    table = read_table("ood")
    assert not table.metrics["aupr"].comparable
    assert table.metrics["aupr"].measures["balanced"] == Measure("aupr_balanced", "out")
    best = table.metrics["detection_accuracy"].measures["measured"]
    assert best == Measure("detection_accuracy", threshold_rule="best")


def test_cure_tsr_goes_before_its_stand_in():
    found = places("corruption", in_dist="CURE-TSR", challenge="Decolor", level="4", method="Ours")
    real, other = found[found["backbone"] == "resnet18"].itertuples()
    assert (real.in_dist, real.challenge, real.level) == ("cure_tsr", "decolor", "4")
    assert (other.in_dist, other.challenge) == ("gtsrb", "cure_like_decolorization")
    assert (real.note, other.note[:24]) == ("", "GTSRB in place of CURE-T")


@pytest.mark.parametrize("name", ["ood", "corruption", "adversarial"])
def test_our_names_in_the_tables_exist(name):
    there = read_table(name).places
    assert set(there["method"]) <= set(group_files("detector"))
    assert set(there["backbone"]) <= set(group_files("backbone"))
    assert set(there["in_dist"]) <= set(group_files("dataset"))
    assert set(there["experiment"]) <= set(group_files("experiment"))


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("title: Made up\n", "", "the table has no title"),
        ("published: made", "published: mad", "did you mean made|no file of published numbers"),
        ("layout: {panels", "layout: {panels: [metrics], x", "did you mean metric"),
        ("rows: [in_dist, challenge]", "rows: [challenge]", "puts several numbers in one cell"),
        ("columns: [method]", "columns: [method, metric]", "aupr takes several lines"),
        ("  auroc: {title: AUROC}\n", "", "metrics names no auroc"),
        ("{title: AUROC}", "{titel: AUROC}", "did you mean metrics.auroc.title"),
        ("side: in}", "sides: in}", "did you mean metrics.aupr.measures.in.side"),
        ("    backbone:", "    backbon:", r"did you mean measured\[0\].backbone"),
        (
            "    backbone:",
            "    hole: {C: none}\n    backbone:",
            "no printed in_dist named 'C'|printed hole",
        ),
        ("hole:", "hold:", "did you mean hole"),
        ("Near: cifar100", "Nea: cifar100", "did you mean Near"),
        ('hole: "method not built: {method} for {metric}"', "", "nothing names the method of Nob"),
        ("title: Made up", "title: [", "is not a valid configuration"),
    ],
)
def test_a_file_that_says_what_it_cannot_is_refused(tmp_path, right, wrong, said):
    assert right in TABLE
    dirs = [own_table(tmp_path, TABLE.replace(right, wrong, 1))]
    with pytest.raises(GradbenchError, match=said) as fault:
        read_table("made", dirs)
    assert "made.yaml" in str(fault.value)


# Filling


def test_cells_hold_the_numbers_that_they_ask_for(made, tmp_path):
    write_run(tmp_path / "runs" / "a", ROWS)
    filled = made()
    first = cell(filled, "A", "Far", "Baseline")
    assert (first["measured"], first["difference"], first["marks"]) == (82.0, 2.0, "")
    near = cell(filled, "A", "Near", "Ours")
    assert (near["measured"], near["difference"]) == (79.04, pytest.approx(0.04))
    several = cells(filled, "A", "Far", "Baseline", "aupr")
    assert dict(zip(several["line"], several["measured"])) == {"in": 90.0, "balanced": 70.0}
    assert several["difference"].isna().all()


def test_a_table_is_laid_out_as_in_print(made, tmp_path):
    write_run(tmp_path / "runs" / "a", ROWS)
    found, notes = texts(made())
    at = ("AUROC", "A", "Far")
    assert found[*at, "published"] == ["80.00", "85.00", "99.00", "70.0"]
    assert found[*at, "measured"] == ["82.0", "– [a]", "99.5", "– [b]"]
    assert found[*at, "interval"] == ["81.0–83.0", "", "(≥98.8)", ""]
    assert found[*at, "difference"] == ["+2.0", "", "+0.5", ""]
    at = ("AUROC", "A", "Near")  # in the unit of the print, without cells that are not printed
    assert found[*at, "measured"] == ["0.780", "", "0.790", ""]
    assert found[*at, "interval"] == ["0.770–0.790", "", "0.780–0.800", ""]
    assert found[*at, "difference"] == ["−0.020", "", "0.000", ""]
    at = ("AUPR", "A", "Far")
    assert found[*at, "in"] == ["90.0", "– [a]", "– [b]"]
    assert found[*at, "balanced"] == ["70.0", "", ""]
    assert (*at, "difference") not in found
    at = ("AUROC", "B", "Far")  # nothing measured: no line for differences
    assert found[*at, "measured"] == ["–", "", "–", ""]
    assert found[*at, "measured", "mark"] == "[c]"  # of the whole line
    assert notes == [
        "[a] run without the detector: energy on cifar10 with resnet18, gradient on cifar10 with "
        "resnet18",
        "[b] method not built: Nobody's for auroc, Nobody's for aupr",
        "[c] not run: ood_gtsrb with resnet18",
    ]


def test_the_best_of_a_group_stands_out_in_print_and_here(made, tmp_path):
    write_run(tmp_path / "runs" / "a", ROWS)
    filled = made()
    assert cell(filled, "A", "Far", "Ours")["best"] == "published measured"
    assert cell(filled, "A", "Near", "Baseline")["best"] == "published"
    assert cell(filled, "A", "Near", "Ours")["best"] == "measured"
    # one measured number of a group is no best
    assert cell(filled, "A", "Far", "Ours", "aupr")["best"] == "published"
    assert set(cells(filled, "A", "Far", "Baseline", "aupr")["best"]) == {""}
    grid = panels(filled.table, filled.cells, Notes())["AUROC"][0]
    strong = {(grid.rows[r][2], grid.header[c]) for r, c in grid.marks if grid.rows[r][0] == "A"}
    assert strong == {("published", "Ours"), ("measured", "Ours")} - {("measured", "Ours")}


def test_the_comparison_counts_cells_and_names_pairs(made, tmp_path):
    assert document.comparison(made()) == ["Nothing is measured."]
    assert made().tally == "0 of 11 cells measured, 0 by stand-in, 11 holes"
    write_run(tmp_path / "runs" / "a", [*ROWS, measured("svhn", "energy", 79.0)])
    text = " ".join(document.comparison(made()))
    assert made().tally == "6 of 11 cells measured, 0 by stand-in, 5 holes"
    # differences: +2, -6, +0.5, -2, +0.04
    assert "Of 5 differences, 2 within 1 point and 4 within 5 points" in text
    assert "differs from the print in 2 of 4 comparisons" in text
    assert "Baseline above Energy here, below it in print: AUROC A Far." in text
    assert "Ours above Baseline here, below it in print: AUROC A Near." in text


def test_several_networks_give_their_mean_and_range(made, tmp_path):
    rows = [measured("svhn", "msp", value, train_seed=s) for s, value in enumerate((80, 82, 87))]
    accuracy = {"0": 0.9, "1": 0.91, "2": 0.92}
    write_run(tmp_path / "runs" / "a", rows, accuracy=accuracy)
    found, _ = texts(made())
    assert found["AUROC", "A", "Far", "measured"][0] == "83.0"
    assert found["AUROC", "A", "Far", "interval"][0] == "(80.0–87.0)"


def test_a_stand_in_is_taken_where_the_set_is_not_at_hand_for_the_whole_group(made, tmp_path):
    hole = absent("svhn", "no such images", experiment="ood_cifar10")
    write_run(tmp_path / "runs" / "a", [hole, measured("cifar100", "msp", 70.0)])
    note = "stands in for LSUN"
    far = [
        measured("scenes", m, v, experiment="ood_cifar10_far", source="stand_in", note=note)
        for m, v in (("msp", 70.0), ("gradient", 90.0))
    ]
    write_run(tmp_path / "runs" / "b", far, name="ood_cifar10_far")
    filled = made()
    found = cell(filled, "A", "Far", "Ours")
    assert (found["measured"], found["run"][-1]) == (90.0, "b")
    assert found["marks"] == "scenes in place of svhn: a stand-in; stands in for LSUN"
    assert (found["stand_in"], cell(filled, "A", "Near", "Baseline")["stand_in"]) == ("yes", "")
    assert "3 of 11 cells measured, 2 by stand-in, 8 holes" in filled.tally
    # Energy is missing at the stand-in, and not looked for elsewhere
    reason = "run without the detector: energy on cifar10 with resnet18"
    assert cell(filled, "A", "Far", "Energy")["reason"] == reason
    assert [run.path.name for run in filled.runs] == ["b", "a"]


def test_the_reason_of_a_run_is_the_reason_of_the_cell(made, tmp_path):
    hole = absent("svhn", "put it at data/svhn", experiment="ood_cifar10")
    write_run(tmp_path / "runs" / "a", [hole])
    filled = made()
    reason = "not measured: put it at data/svhn"
    assert cell(filled, "A", "Far", "Ours")["reason"] == reason
    assert cell(filled, "A", "Near", "Ours")["reason"] == "not run: ood_cifar10 with resnet18"


@pytest.mark.parametrize(
    ("row", "run", "mark"),
    [
        ({"source": "part", "note": "10 of 20 images"}, {}, "svhn: a part of the set; 10 of 20"),
        ({"source": "generated"}, {}, "images generated here"),
        ({"source": "regenerated"}, {}, "svhn: brought to this shape here"),
        ({"source": "generated", "challenge_set": "adversarial"}, {}, None),
        ({"note": "indicative: fewer than 500 abnormal images"}, {}, "indicative"),
        ({}, {"width": 32}, "resnet18 of width 32 instead of 64"),
        ({}, {"detectors": [{"use": "msp", "drawn": 50}]}, "msp with drawn=50"),
        ({}, {"detectors": ["msp", {"use": "knn", "k": 5}]}, None),
        ({}, {"limit": 2000}, "10000 clean test images of cifar10, not all of them"),
        ({}, {"data": {"train": {"status": "part"}}}, "trained on a part of the set cifar10"),
        ({}, {"data": {"train": {"status": "official"}}}, None),
    ],
)
def test_what_is_not_as_in_print_is_marked(made, tmp_path, row, run, mark):
    write_run(tmp_path / "runs" / "a", [measured("svhn", "msp", 80.0, **row)], **run)
    filled = made()
    found = cell(filled, "A", "Far", "Baseline")["marks"]
    assert found.startswith(mark) if mark else found == ""
    shown = texts(filled)[0]
    at = ("AUROC", "A", "Far", "measured")
    assert shown[at][0] == "80.0"
    assert shown.get((*at, "mark")) == ("[a]" if mark else None)


@pytest.mark.parametrize(
    ("best", "hi", "near"),
    [
        ("gradient", 0.5, True),
        ("gradient", 0.0, True),
        ("gradient", -0.01, False),
        ("knn", 1, False),
    ],
)
def test_what_is_not_told_from_the_best_is_marked(made, tmp_path, best, hi, near):
    ends = {"lo": -2.5, "hi": hi, "compared_with": best}
    test = measured("svhn", "msp", -1.0, "auroc_difference", **ends)
    rows = [measured("svhn", "gradient", 90.0), measured("svhn", "msp", 89.0), test]
    write_run(tmp_path / "runs" / "a", rows)
    filled = made()
    assert cell(filled, "A", "Far", "Baseline")["near_best"] == ("yes" if near else "")
    assert cell(filled, "A", "Far", "Ours")["near_best"] == ""
    for render in RENDER:
        assert ("89.0≈" in render(filled)) is near


# Which runs


def far(value, **more):
    return [measured("svhn", "msp", value, **more)]


MORE = measured("cifar100", "gradient", 79.0)
OTHER = measured("textures", "msp", 70.0)


@pytest.mark.parametrize(
    ("older", "newer", "right"),
    [
        ((far(80.0), {}), (far(81.0), {}), 81.0),
        (([*far(80.0), MORE], {}), (far(81.0), {}), 80.0),
        ((far(80.0), {}), (far(81.0, protocol="icip2020"), {"protocol": "icip2020"}), 80.0),
        ((far(80.0), {}), (far(81.0, protocol="transfer"), {"protocol": "transfer"}), 80.0),
        ((far(80.0), {}), ([OTHER], {}), 80.0),
        ((far(80.0), {}), (far(81.0, in_dist="svhn"), {"in_dist": "svhn"}), 80.0),
        ((far(80.0), {}), (far(81.0, backbone="resnet34"), {"backbone": "resnet34"}), 80.0),
    ],
    ids=["newest", "more cells", "protocol", "not accepted", "empty", "set", "backbone"],
)
def test_one_run_leads(made, tmp_path, older, newer, right):
    write_run(tmp_path / "runs" / "a", older[0], begun=OLD, weights="x", **older[1])
    write_run(tmp_path / "runs" / "b", newer[0], begun=NEW, weights="y", **newer[1])
    filled = made()
    assert cell(filled, "A", "Far", "Baseline")["measured"] == right
    assert len(filled.runs) == 1


def test_runs_of_the_same_network_complete_each_other(made, tmp_path):
    write_run(tmp_path / "runs" / "a", far(80.0), begun=OLD)
    write_run(tmp_path / "runs" / "b", [MORE], begun=NEW)
    filled = made()
    assert [run.path.name for run in filled.runs] == ["a", "b"]
    assert filled.left_out == []


@pytest.mark.parametrize("other", [{"weights": "y"}, {"limit": 2000}, {"protocol": "icip2020"}])
def test_numbers_of_two_networks_parts_or_protocols_never_stand_in_one_table(made, tmp_path, other):
    write_run(tmp_path / "runs" / "a", far(80.0), begun=OLD)
    near = measured("cifar100", "gradient", 79.0, protocol=other.get("protocol", "grouped"))
    write_run(tmp_path / "runs" / "b", [near], begun=NEW, **other)
    filled = made()
    assert len(filled.runs) == 1
    assert "Left aside" in filled.left_out[0]


# Several networks

DENSE = {"backbone": "densenet_bc_100_12"}


@pytest.fixture
def three(tmp_path):
    """A table of two networks, filled from runs with the wide, the narrow and the other one."""
    two = TABLE.replace("backbone: resnet18", "backbone: [resnet18, densenet_bc_100_12]")
    dirs = [own_table(tmp_path / "own", two)]
    ends = {"lo": -2.5, "hi": 0.5, "compared_with": "gradient"}
    alike = measured("svhn", "msp", -1.0, "auroc_difference", **ends)
    wide = [measured("svhn", "msp", 90.0), measured("svhn", "gradient", 91.0)]
    narrow = [
        measured("svhn", "msp", v, width=32, train_seed=s, source="part", n_abnormal=700)
        for s, v in enumerate((80, 82, 87))
    ]
    narrow.append(measured("cifar100", "gradient", 70.0, width=32))
    other = [measured("svhn", "msp", 95.0), measured("svhn", "gradient", 95.5), alike]
    other = [row | DENSE for row in other]
    write_run(tmp_path / "runs" / "w64", wide, weights="x")
    write_run(tmp_path / "runs" / "w32", narrow, weights="y", width=32)
    about = {"network_origin": "published at nowhere.example"}
    write_run(tmp_path / "runs" / "dense", other, weights="z", width=None, **DENSE, **about)
    return fill(read_table("made", dirs), find_runs([tmp_path / "runs"]), dirs)


def test_every_network_has_lines_of_its_own(three):
    names = ["resnet18", "resnet18 of width 32", "densenet_bc_100_12 as published"]
    assert three.networks == names
    assert three.left_out == []
    found = cells(three, "A", "Far", "Baseline")[["network", "measured", "difference"]]
    assert found.to_numpy().tolist() == [
        [names[0], 90.0, 10.0], [names[1], 83.0, 3.0], [names[2], 95.0, 15.0]
    ]  # fmt: skip
    shown, notes = texts(three)
    at = ("AUROC", "A", "Far")
    assert shown[*at, "published"][0] == "80.00"
    assert shown[*at, f"measured, {names[0]}"] == ["90.0", "– [a]", "91.0", "– [b]"]
    line = f"measured, {names[1]}, 3 seeds"
    assert shown[*at, line] == ["83.0", "– [a]", "– [a]", "– [b]"]
    assert [notes[ord(x) - 97][4:42] for x in re.findall("[a-z]", shown[*at, line, "mark"])] == [
        "resnet18 of width 32 instead of 64", "svhn: a part of the set"
    ]  # fmt: skip
    assert shown[*at, f"measured, {names[2]}"] == ["95.0", "– [a]", "95.5", "– [b]"]
    assert "run without the detector: energy on cifar10 with resnet18, gradient on " in notes[0]


def test_the_best_is_that_of_a_network(three):
    found = cells(three, "A", "Far", "Ours")
    assert [*found["best"]] == ["published measured", "published", "published measured"]
    assert [*cells(three, "A", "Far", "Baseline")["near_best"]] == ["", "", "yes"]
    assert "the best of its group and network." in document.markdown(three)


def test_a_cell_is_counted_once_and_networks_are_compared_one_by_one(three):
    assert three.tally == "3 of 11 cells measured, 0 by stand-in, 8 holes"
    text = " ".join(document.comparison(three))
    assert "resnet18 of width 32, 2 cells. Of 2 differences, 0 within 1 point" in text
    assert "densenet_bc_100_12 as published, 2 cells. Of 2 differences" in text
    head = document.markdown(three)
    assert "published at nowhere.example, test accuracy" in head
    assert "images measured, resnet18 of width 32: 10000 : 700 (svhn)" in head
    assert summary(three)[0] == "made: 3 of 11 cells measured, 0 by stand-in, 8 holes"


def test_the_runs_of_every_network_are_missing_by_themselves(three, tmp_path):
    runs = missing_runs([three], [], DataSettings(tmp_path, download=True))
    far = {(run.experiment, run.backbone): run.cells for run in runs}
    assert far["ood_cifar10", "densenet_bc_100_12"] > far["ood_cifar10", "resnet18"] > 0


def test_a_hole_says_what_the_file_says_of_it(tmp_path):
    hole = "    hole: {B: no signs were at hand}\n    backbone:"
    dirs = [own_table(tmp_path / "own", TABLE.replace("    backbone:", hole))]
    filled = fill(read_table("made", dirs), [], dirs)
    reason = "not run: ood_gtsrb with resnet18 (no signs were at hand)"
    assert cell(filled, "B", "Far", "Ours")["reason"] == reason
    assert cell(filled, "A", "Far", "Ours")["reason"].endswith("resnet18")


def test_runs_are_found_below_and_stores_are_not_searched(tmp_path):
    write_run(tmp_path / "x" / "deep" / "a", far(1.0), begun=OLD)
    write_run(tmp_path / "x" / "b", far(1.0), begun=NEW)
    write_run(tmp_path / "x" / "store" / "c", far(1.0))
    write_run(tmp_path / "x" / ".part" / "d", far(1.0))
    (tmp_path / "x" / "unfinished").mkdir()
    (tmp_path / "x" / "unfinished" / "run.json").write_text("{}")
    assert [run.path.name for run in find_runs([tmp_path / "x", tmp_path])] == ["b", "a"]


@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"about": {}}'])
def test_a_damaged_run_is_told_in_a_sentence(tmp_path, text):
    folder = write_run(tmp_path / "a", far(1.0))
    (folder / "run.json").write_text(text)
    with pytest.raises(GradbenchError, match=r"a/run\.json is damaged"):
        find_runs([tmp_path])


# Documents

RENDER = (document.terminal, document.markdown, document.html_fragment)


@pytest.fixture
def ood(tmp_path, monkeypatch):
    """The table `ood`, filled from a run in results/run; the working folder is its root."""
    monkeypatch.chdir(tmp_path)
    part = {"source": "part", "note": "1,083 of 73,257 images", "n_abnormal": 1083}
    rows = [
        measured("svhn", "msp", 91.0, **part),
        measured("svhn", "gradient", 99.7),
        measured("tiny_imagenet", "msp", 85.8, source="regenerated"),
        measured("svhn", "msp", 88.0, "detection_accuracy", threshold_rule="best", half=0),
        measured("svhn", "msp", 99.0, "aupr", side="in", half=0),
        measured("svhn", "msp", 41.6, "aupr", side="out", half=0),
        measured("svhn", "msp", 86.4, "aupr_balanced", side="out", half=0),
    ]
    write_run(tmp_path / "results" / "run", rows, width=32)
    return fill(read_table("ood"), find_runs([tmp_path.joinpath("results").relative_to(tmp_path)]))


def test_the_terminal_is_no_wider_than_asked(ood):
    for width in (60, 100, 160):
        assert max(map(len, document.terminal(ood, width).splitlines())) <= width


@pytest.mark.parametrize("render", RENDER)
def test_every_form_says_all(ood, render):
    text = " ".join(re.sub(r"<[^>]+>", "_", render(ood)).split())
    for said in ("99.84", "91.0", "+2.7", "width 32 instead of 64", "1,083", "Made from", "msp"):
        assert said in text, said
    assert "cells measured" in text


def test_conventions_stand_above_the_numbers(ood):
    text = document.markdown(ood)
    head = text[: text.index("## Detection accuracy")]
    for said in (
        "Units: percent",
        "at the best threshold for these very images",
        "normal images as positive (in), abnormal ones (out)",
        "Protocol: grouped",
        "10000 : 1083 (svhn)",
        "Baseline is `msp`, supervision none: sees nothing of the challenge",
        "Ours is `gradient`, supervision training",
        "test accuracy 95.0 %",
    ):
        assert said in " ".join(head.split()), said


@pytest.mark.parametrize("name", table_files())
def test_every_table_is_written_in_every_form(name):
    filled = fill(read_table(name), [])
    assert max(map(len, document.terminal(filled).splitlines())) <= 100
    for text in (document.markdown(filled), document.html_fragment(filled)):
        assert all(value in text for value in filled.table.printed["value"])


def test_the_csv_holds_every_cell_and_where_it_is_from(ood):
    found = list(csv.DictReader(StringIO(to_csv([ood]))))
    assert len({tuple(line[n] for n in NAMING) for line in found}) == 90
    assert len(found) == 92  # one cell has three sides
    (line,) = [x for x in found if x["measured"] == "91.0"]
    assert (line["published"], line["difference"]) == ("88.30", "2.7")
    assert (line["lo"], line["hi"]) == ("90.0", "92.0")
    assert (line["run"], line["our_challenge"]) == ("results/run", "svhn")
    assert all(x["measured"] or x["reason"] for x in found)
