"""Tables filled from hand-made rows: the right cells, marks, holes, differences and verdict."""

import pytest
from _made_runs import TABLE, absent, measured, own_table, write_run

from gradbench.report.papers import document
from gradbench.report.papers.fill import fill
from gradbench.report.papers.layout import Notes, panels
from gradbench.report.papers.runs import find_runs
from gradbench.report.papers.spec import read_table
from gradbench.report.papers.verdict import verdict

ROWS = [
    measured("svhn", "msp", 82.0),
    measured("svhn", "gradient", 99.5, lo=98.8, hi=100.0, note="exact one-sided lower bound"),
    measured("cifar100", "msp", 78.0),
    measured("cifar100", "gradient", 79.04),
    measured("svhn", "msp", 90.0, "aupr", side="in", half=0),
    measured("svhn", "msp", 70.0, "aupr_balanced", side="out", half=0),
    # numbers that must not be taken: another fold, split, side, control
    measured("svhn", "msp", 1.0, fold="0"),
    measured("svhn", "msp", 2.0, protocol="random"),
    measured("svhn", "msp", 3.0, "aupr", side="out"),
    measured("svhn", "msp", 4.0, challenge_set="control"),
]


@pytest.fixture
def made(tmp_path):
    """Return a function that fills the user's table from the runs below `runs`."""
    dirs = [own_table(tmp_path / "own")]

    def filled(text=TABLE):
        own_table(tmp_path / "own", text)
        return fill(read_table("made", dirs), find_runs([tmp_path / "runs"]), dirs)

    return filled


def cell(filling, in_dist, challenge, method, metric="auroc"):
    (found,) = [
        one
        for one in filling.cells
        if (p := one.wanted.printed).in_dist == in_dist
        and (p.challenge, p.method, p.metric) == (challenge, method, metric)
    ]
    return found


def values(filling, *names):
    return {line: number.value for line, number in cell(filling, *names).numbers.items()}


def texts(filling, own_line=False):
    """Return (panel, row, line) -> cells."""
    notes, found, before = Notes(), {}, ""
    for panel in panels(filling, notes, own_line):
        for in_dist, challenge, line, *cells in panel.grid.rows:
            before = (in_dist or before[0], challenge or before[1])
            found[panel.title, *before, line] = cells
    return found, notes.lines()


def test_cells_hold_the_numbers_that_they_ask_for(made, tmp_path):
    write_run(tmp_path / "runs" / "a", ROWS)
    filling = made()
    assert values(filling, "A", "Far", "Baseline") == {"measured": 82.0}
    assert values(filling, "A", "Near", "Ours") == {"measured": 79.04}
    assert values(filling, "A", "Far", "Baseline", "aupr") == {"in": 90.0, "balanced": 70.0}
    assert cell(filling, "A", "Far", "Baseline").difference == pytest.approx(2.0)
    assert cell(filling, "A", "Near", "Ours").difference == pytest.approx(0.04)
    assert cell(filling, "A", "Far", "Baseline", "aupr").difference is None
    assert cell(filling, "A", "Far", "Baseline").marks == ()


def test_a_table_is_laid_out_as_in_print(made, tmp_path):
    write_run(tmp_path / "runs" / "a", ROWS)
    found, notes = texts(made())
    at = ("AUROC", "A", "Far")
    assert found[*at, "published"] == ["80.00", "85.00", "99.00", "70.0"]
    assert found[*at, "measured"] == ["82.0 81.0–83.0", "– [a]", "99.5 (≥ 98.8)", "– [b]"]
    assert found[*at, "difference"] == ["+2.0", "", "+0.5", ""]
    at = ("AUROC", "A", "Near")  # in the unit of the print, without cells that are not printed
    assert found[*at, "measured"] == ["0.780 0.770–0.790", "", "0.790 0.780–0.800", ""]
    assert found[*at, "difference"] == ["−0.020", "", "0.000", ""]
    at = ("AUPR", "A", "Far")
    assert found[*at, "in"] == ["90.0", "– [a]", "– [b]"]
    assert found[*at, "balanced"] == ["70.0", "", ""]
    assert (*at, "difference") not in found
    at = ("AUROC", "B", "Far")  # nothing measured: no line for differences
    assert found[*at, "measured"] == ["– [c]", "", "– [c]", ""]
    assert (*at, "difference") not in found
    assert notes == [
        "[a] run without the detector: energy on cifar10 with resnet18, gradient on cifar10 with "
        "resnet18",
        "[b] method not built: Nobody's, Nobody's for aupr",
        "[c] not run: ood_gtsrb with resnet18",
    ]


def test_intervals_stand_in_lines_of_their_own_where_columns_are_narrow(made, tmp_path):
    write_run(tmp_path / "runs" / "a", ROWS)
    found, _ = texts(made(), own_line=True)
    assert found["AUROC", "A", "Far", "measured"][:3] == ["82.0", "– [a]", "99.5"]
    assert found["AUROC", "A", "Far", "interval"][:3] == ["81.0–83.0", "", "(≥98.8)"]
    assert ("AUPR", "A", "Far", "interval") not in found  # none is known


def test_the_best_of_a_group_stands_out_in_print_and_here(made, tmp_path):
    write_run(tmp_path / "runs" / "a", ROWS)
    filling = made()
    assert cell(filling, "A", "Far", "Ours").best == {"published", "measured"}
    assert cell(filling, "A", "Near", "Baseline").best == {"published"}
    assert cell(filling, "A", "Near", "Ours").best == {"measured"}
    # one measured number of a group is no best
    assert cell(filling, "A", "Far", "Ours", "aupr").best == {"published"}
    assert cell(filling, "A", "Far", "Baseline", "aupr").best == set()
    notes = Notes()
    grid = panels(filling, notes)[0].grid
    strong = {(grid.rows[r][2], grid.header[c]) for r, c in grid.strong if grid.rows[r][0] == "A"}
    assert strong == {("published", "Ours")}


def test_the_verdict_counts_cells_and_names_pairs(made, tmp_path):
    rows = [*ROWS, measured("svhn", "energy", 79.0)]
    write_run(tmp_path / "runs" / "a", rows)
    found = verdict(made())
    assert (found.cells, found.measured, found.marked, found.compared) == (11, 6, 0, 5)
    # differences: +2, -6, +0.5, -2, +0.04
    assert found.within == {1: 2, 5: 4}
    assert found.pairs == 4
    assert found.differ == {
        ("Energy", "Baseline"): ["AUROC A Far"],
        ("Baseline", "Ours"): ["AUROC A Near"],
    }
    said = " ".join(found.sentences())
    assert "6 of 11 cells measured" in said
    assert "Of 5 differences, 2 within 1 point and 4 within 5 points" in said
    assert "differs from the print in 2 of 4 comparisons" in said
    assert "Baseline above Energy here, below it in print" in said


def test_equal_values_are_no_other_order(made, tmp_path):
    rows = [measured("cifar100", "msp", 79.0), measured("cifar100", "gradient", 79.0)]
    write_run(tmp_path / "runs" / "a", rows)
    found = verdict(made())
    assert (found.pairs, found.differ) == (1, {})


def test_nothing_measured_is_said(made):
    assert verdict(made()).sentences() == ["None of 11 cells measured."]


def test_several_networks_give_their_mean_and_range(made, tmp_path):
    rows = [measured("svhn", "msp", value, train_seed=s) for s, value in enumerate((80, 82, 87))]
    accuracy = {"0": 0.9, "1": 0.91, "2": 0.92}
    write_run(tmp_path / "runs" / "a", rows, accuracy=accuracy)
    filling = made()
    assert cell(filling, "A", "Far", "Baseline").difference == pytest.approx(3.0)
    found, _ = texts(filling)
    assert found["AUROC", "A", "Far", "measured"][0] == "83.0 (80.0–87.0)"


def test_a_stand_in_is_taken_where_the_set_is_not_at_hand_for_the_whole_group(made, tmp_path):
    hole = absent("svhn", "no such images", experiment="ood_cifar10")
    write_run(tmp_path / "runs" / "a", [hole, measured("cifar100", "msp", 70.0)])
    note = "stands in for LSUN"
    far = [
        measured("scenes", m, v, experiment="ood_cifar10_far", source="stand_in", note=note)
        for m, v in (("msp", 70.0), ("gradient", 90.0))
    ]
    write_run(tmp_path / "runs" / "b", far, name="ood_cifar10_far")
    filling = made()
    found = cell(filling, "A", "Far", "Ours")
    assert (found.numbers["measured"].value, found.run.path.name) == (90.0, "b")
    assert found.marks == ("scenes in place of svhn: a stand-in; stands in for LSUN",)
    # Energy is missing at the stand-in, and not looked for elsewhere
    reason = "run without the detector: energy on cifar10 with resnet18"
    assert cell(filling, "A", "Far", "Energy").reason == reason
    assert [run.path.name for run in filling.runs] == ["b", "a"]


def test_the_reason_of_a_run_is_the_reason_of_the_cell(made, tmp_path):
    write_run(tmp_path / "runs" / "a", [absent("svhn", "put it at data/svhn")])
    filling = made()
    reason = "not measured: put it at data/svhn"
    assert cell(filling, "A", "Far", "Ours").reason == reason
    assert cell(filling, "A", "Near", "Ours").reason == "not run: ood_cifar10 with resnet18"


@pytest.mark.parametrize(
    ("row", "run", "mark"),
    [
        ({"source": "part", "note": "10 of 20 images"}, {}, "svhn: a part of the set; 10 of 20"),
        ({"source": "generated"}, {}, "images generated here"),
        ({"source": "regenerated"}, {}, "svhn: brought to this shape here"),
        ({"source": "generated", "challenge_set": "adversarial"}, {}, None),
        ({"note": "indicative: fewer than 500 abnormal images"}, {}, "indicative"),
        ({}, {"width": 32}, "resnet18 of width 32 instead of 64"),
        ({}, {"limit": 2000}, "10000 clean test images of cifar10, not all of them"),
        ({}, {"data": {"train": {"status": "part"}}}, "trained on a part of the set cifar10"),
        ({}, {"data": {"train": {"status": "official"}}}, None),
    ],
)
def test_what_is_not_as_in_print_is_marked(made, tmp_path, row, run, mark):
    write_run(tmp_path / "runs" / "a", [measured("svhn", "msp", 80.0, **row)], **run)
    found = cell(made(), "A", "Far", "Baseline").marks
    assert len(found) == (mark is not None)
    assert all(text.startswith(mark) for text in found)


def test_a_mark_is_a_letter_beside_the_number(made, tmp_path):
    rows = [measured("svhn", "msp", 80.0, source="part", half=0)]
    write_run(tmp_path / "runs" / "a", rows, width=32)
    found, notes = texts(made())
    assert found["AUROC", "A", "Far", "measured"][0] == "80.0 [a,b]"
    assert notes[:2] == ["[a] resnet18 of width 32 instead of 64", "[b] svhn: a part of the set"]


def differences(best, worse, hi):
    ends = {"lo": -2.5, "hi": hi, "compared_with": best}
    return measured("svhn", worse, -1.0, "auroc_difference", **ends)


@pytest.mark.parametrize(("hi", "near"), [(0.5, True), (0.0, True), (-0.01, False)])
def test_what_is_not_told_from_the_best_is_marked(made, tmp_path, hi, near):
    best = [measured("svhn", "gradient", 90.0), measured("svhn", "msp", 89.0)]
    write_run(tmp_path / "runs" / "a", [*best, differences("gradient", "msp", hi)])
    filling = made()
    assert cell(filling, "A", "Far", "Baseline").near is near
    assert cell(filling, "A", "Far", "Ours").near is False
    texts = (document.terminal, document.markdown, document.latex_document, document.html_fragment)
    for render, sign in zip(texts, ("89.0≈", "89.0≈", r"89.0$\approx$", "89.0≈")):
        assert (sign in render(filling)) is near
        assert ("not distinguishable from the best" in " ".join(render(filling).split())) is near


def test_a_test_against_another_detector_says_nothing_of_the_best_here(made, tmp_path):
    rows = [measured("svhn", "gradient", 90.0), measured("svhn", "msp", 89.0)]
    write_run(tmp_path / "runs" / "a", [*rows, differences("gradient_logistic", "msp", 0.9)])
    assert cell(made(), "A", "Far", "Baseline").near is False
