"""Which sets a figure shows where there are many."""

from types import SimpleNamespace

from gradbench.report.selection import CURVES, LINES, PANELS, detectors, lines, panels
from gradbench.report.view import Line


def cells(families: int, levels=(1, 2, 3, 4, 5)):
    return [
        SimpleNamespace(name=f"f{i}", title=f"f{i} {level}", level=level)
        for i in range(families)
        for level in levels
    ]


def titles(of) -> list[str]:
    return [cell.title for cell in of]


def test_few_are_all_shown():
    own = cells(4)
    assert panels(own, titles(own)) == (titles(own), "")


def test_of_many_the_first_and_last_level():
    own = cells(8, (2, 3, 5))
    shown, said = panels(own, ["svhn", *titles(own)])
    assert shown == ["svhn", *(f"f{i} {level}" for i in range(8) for level in (2, 5))]
    assert said == "; first and last level"


def test_of_very_many_the_last_level_alone():
    own = cells(19)
    shown, said = panels(own, titles(own))
    assert shown == [f"f{i} 5" for i in range(19)]
    assert said == "; last level"
    assert len(shown) <= PANELS


def test_lines_are_fewer_than_panels():
    own = cells(8)
    shown, said = lines(own, ["cifar10", *titles(own)])
    assert shown == ["cifar10", *(f"f{i} 5" for i in range(8))]
    assert said == "; last level"
    assert len(shown) <= LINES


def test_sets_that_are_missing_are_not_shown():
    own = cells(8)
    there = [title for title in titles(own) if title not in ("f0 5", "f3 1")]
    shown, _ = panels(own, there)
    assert shown[:2] == ["f0 1", "f0 4"]
    assert set(shown) <= set(there)


def test_sets_without_levels_are_all_shown_however_many():
    names = [f"set {i}" for i in range(30)]
    assert panels([], names) == (names, "")


class Measured:
    """A view of two challenges and their mean, with these AUROCs."""

    def __init__(self, aurocs):
        self.aurocs = aurocs

    def lines(self):
        return [Line("ood", name, "") for name in ("svhn", "textures", "mean:ood")]

    def spread(self, line, name):
        value = self.aurocs[name] if not line.is_mean else 100 - self.aurocs[name]
        return None if value is None else (value, value, value)


def test_few_detectors_are_all_drawn():
    aurocs = {f"d{i}": 50.0 + i for i in range(CURVES)}
    assert detectors(Measured(aurocs), list(aurocs)) == (list(aurocs), "")


def test_of_many_detectors_the_baseline_and_the_best_in_the_order_given():
    aurocs = {"msp": 40.0} | {f"d{i}": 50.0 + (7 * i) % 13 for i in range(13)}
    shown, said = detectors(Measured(aurocs), list(aurocs))
    best = sorted(aurocs, key=aurocs.get)[-(CURVES - 1) :]
    assert shown == [name for name in aurocs if name == "msp" or name in best]
    assert len(shown) == CURVES
    assert said == "; msp and the 7 best of 14 on the mean"


def test_without_the_baseline_the_best_alone():
    aurocs = {f"d{i}": 50.0 + i for i in range(CURVES + 1)}
    shown, said = detectors(Measured(aurocs), list(aurocs))
    assert shown == list(aurocs)[1:]
    assert said == "; the 8 best of 9 on the mean"
