"""Which sets and detectors a figure shows, where there are too many for all of them."""

from types import SimpleNamespace

from made_rows import auroc

from gradbench.report.run_folder import fewer_levels
from gradbench.report.run_rows import RunRows, best_detectors
from gradbench.run.rows import frame


def cells(families, levels):
    return [
        SimpleNamespace(name=f"f{i}", level=level, title=f"f{i} {level}")
        for i in range(families)
        for level in levels
    ]


def test_few_sets_are_all_shown():
    found = cells(4, range(1, 6))
    titles = [cell.title for cell in found]
    assert fewer_levels(found, titles, 20) == (titles, "")


def test_of_many_levels_the_first_and_last_are_shown_and_then_the_last_alone():
    titles = ["svhn", *(cell.title for cell in cells(8, (1, 3, 5)))]
    kept, which = fewer_levels(cells(8, (1, 3, 5)), titles, 20)
    assert kept == [t for t in titles if not t.endswith(" 3")]
    assert which == "; first and last level"
    kept, which = fewer_levels(cells(8, (1, 3, 5)), titles, 12)
    assert kept == [t for t in titles if t == "svhn" or t.endswith(" 5")]
    assert which == "; last level"


def test_sets_without_levels_are_always_shown():
    titles = [f"set{i}" for i in range(30)]
    assert fewer_levels([], titles, 20) == (titles, "")


def test_of_many_detectors_the_baseline_and_the_best_on_the_mean_are_shown():
    names = [f"d{i:02}" for i in range(20)]
    rows = [auroc("ood", "svhn", name, 60.0 + i) for i, name in enumerate(names)]
    rows += [auroc("ood", "svhn", "msp", 50.0)]
    found = RunRows(frame(rows), "grouped")
    kept, which = best_detectors(found, ["msp", *names], 8, "msp")
    assert kept == ["msp", *names[-7:]]
    assert which == "msp and the 7 best of 21 on the mean"
    assert best_detectors(found, names[:8], 8, "msp") == (names[:8], "")
