"""The report: a page that is whole by itself, whose numbers are those of the rows."""

import json
import re

import pytest
from _reported import COSTS, cells, parsed, write
from made_rows import auroc, everything, whole_run
from PIL import Image

from gradbench.report import figures
from gradbench.report.finished_run import seal
from gradbench.report.page import open_runs, report
from gradbench.run.rows import read_csv


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """Return the folder of a run with every kind of challenge, with pictures."""
    folder = write(tmp_path_factory.mktemp("one") / "quickstart", whole_run())
    (folder / "figures").mkdir()
    for name in ("roc", "scores_msp", "gradient_profile", "levels"):
        Image.linear_gradient("L").convert("RGB").save(folder / "figures" / f"{name}.png")
    seal(folder)
    return folder


@pytest.fixture(scope="module")
def text(one):
    return report(open_runs([one]), "gradbench report <one>")


@pytest.fixture(scope="module")
def page(text):
    return parsed(text)


def captioned(page, begins):
    (found,) = [t for t in page.all("table") if t.all("caption")[0].text.startswith(begins)]
    return found


def test_equal_runs_give_equal_bytes(one, text):
    assert report(open_runs([one]), "gradbench report <one>") == text


def test_nothing_is_fetched(text, page):
    assert not page.all("script")
    for element in page.all():
        for name, value in element.attributes.items():
            if name in ("src", "href", "xlink:href", "srcset", "data", "action", "poster"):
                assert value.startswith(("data:", "#")), (element.tag, value)
    style = page.all("style")[0].text
    assert "url(" not in style
    assert "@import" not in style
    assert not re.search(r"https?://", text)


def test_every_link_of_the_contents_has_its_place_and_no_place_is_twice(page):
    places = [e.attributes["id"] for e in page.all() if "id" in e.attributes]
    assert len(places) == len(set(places))
    links = [a.attributes["href"].removeprefix("#") for a in page.all("nav")[0].all("a")]
    assert len(links) > 12
    assert set(links) <= set(places)
    for link in page.all("a"):
        assert link.attributes["href"].removeprefix("#") in places


def test_what_stands_in_it(page):
    contents = [a.text.split(" ")[0] for a in page.all("nav")[0].all("a")]
    wanted = ("What", "quickstart", "Conventions", "AUROC", "Cost", "ROC", "Histograms", "Gradient")
    for word in (*wanted, "Controls", "Provenance", "How", "This"):
        assert word in contents


def test_tables_have_captions_and_headers_with_scope(page):
    for table in page.all("table"):
        assert table.all("caption")[0].text.strip()
        assert all(th.attributes["scope"] == "col" for th in table.all("thead")[0].all("th"))
        assert all(th.attributes["scope"] == "row" for th in table.all("tbody")[0].all("th"))
        assert table.parent.attributes["class"] == "scroll"


def test_figures_have_captions_and_words_for_those_who_do_not_see_them(page):
    figures = page.all("figure")
    assert len(figures) == 5
    for figure in figures:
        assert figure.all("figcaption")[0].text.count("small_cnn, width 16, seed 0") == 1
        drawn = figure.all("img") + figure.all("svg", "chart")
        assert drawn
        for picture in drawn:
            told = picture.attributes.get("alt") or picture.attributes.get("aria-label")
            assert len(told) > 20


def test_the_main_table_holds_the_numbers_of_the_rows(one, page):
    rows = read_csv(one / "results.csv")
    rows = rows[(rows["metric"] == "auroc") & (rows["fold"] == "all")]
    rows = rows[(rows["protocol"] == "grouped") & (rows["role"] == "main")]
    table = captioned(page, "AUROC in percent")
    head = [th.text for th in table.all("thead")[0].all("th")]
    shown = {}
    for line in cells(table):
        told = dict(zip(head, line))
        for name in ("msp", "gradient"):
            shown[told["challenge"], told["level"], name] = told[name]
    for row in rows.itertuples():
        text = shown.pop((row.challenge, row.level.replace("0", ""), row.method))
        if row.value == 100:
            assert text == f"100 (≥ {row.lo:.1f})"
        else:
            assert text == f"{row.value:.1f} {row.lo:.1f}–{row.hi:.1f}"
    assert {text for text in shown.values() if text} == {"– (a)"}
    notes = table.parent.parent.text
    assert "(a) not measured: svhn/test.npz is not under data.root" in notes


def test_what_stands_above_the_tables(page):
    (part,) = page.all("section", id="run-1-quickstart-conventions")
    for words in ("Normal images: digits", "Network f: ", "Protocol: ", "Units: ", "Thresholds: ",
                  "positive class", "The 95 % interval", "360 : 1000"):  # fmt: skip
        assert words in part.text
    saw = cells(captioned(page, "Who saw what"))
    assert [line[0] for line in saw] == ["msp", "gradient"]
    assert "images of the challenge, to fit weights" in saw[1]


def test_all_measures_have_their_intervals(tmp_path):
    rows = everything("ood", "patches", "msp", 91.2)
    rows = [row | ({"lo": 80.0, "hi": 81.0} if row["side"] == "in" else {}) for row in rows]
    page = parsed(report(open_runs([write(tmp_path / "run", rows)]), ""))
    table = captioned(page, "All measures")
    head = [th.text for th in table.all("thead")[0].all("th")]
    assert cells(table)[0][head.index("AUPR in")] == "90.9 80.0–81.0"


def test_without_costs_there_is_no_such_chart(tmp_path):
    folder = write(tmp_path / "run", whole_run(), costs="")
    assert not parsed(report(open_runs([folder]), "")).all(
        "figure", id="run-1-quickstart-figure-costs"
    )


def drawn(monkeypatch, name):
    """Return what a figure is drawn of, by its title."""
    found = {}

    def draw(stream, title, *arguments):
        found[title] = arguments
        Image.new("RGB", (9, 9)).save(stream, "PNG")

    monkeypatch.setattr(figures, name, draw)
    return found


def test_the_chart_of_costs_tells_time_with_passes(one, monkeypatch):
    found = drawn(monkeypatch, "costs")
    page = parsed(report(open_runs([one]), ""))
    ((points,),) = found.values()
    assert set(points) == {"patches", "gaussian_noise 1", "gaussian_noise 3", "gaussian_noise 5",
                           "fgsm"}  # fmt: skip
    assert points["patches"]["ms"].to_dict() == {"msp": 2.5, "gradient": 10.0}
    assert points["patches"].loc["msp"].to_list() == [2.5, 91.234, 90.0, 92.5, True]
    (figure,) = page.all("figure", id="run-1-quickstart-figure-costs")
    assert "taken on cpu (A & B)" in figure.all("figcaption")[0].text


def test_detectors_that_were_not_timed_are_named(tmp_path):
    costs = COSTS.replace("2000,400,", "2000,,")
    text = report(open_runs([write(tmp_path / "run", whole_run(), costs=costs)]), "")
    assert "figure-costs" not in text  # one detector is nothing to compare


def test_the_heat_map_holds_the_transfer(tmp_path, monkeypatch):
    names = {"patches": 99.0, "fgsm": 40.0}
    rows = []
    for on, value in names.items():
        kinds = {"patches": "ood", "fgsm": "adversarial"}
        other = next(name for name in names if name != on)
        rows.append(auroc(kinds[on], on, f"gradient@{on}", value, protocol="grouped"))
        rows.append(auroc(kinds[other], other, f"gradient@{on}", value - 9, protocol="transfer"))
    rows.append(auroc("ood", "patches", "msp", 91.0, protocol="transfer"))
    folder = write(tmp_path / "run", rows, protocol="transfer")
    found = drawn(monkeypatch, "heat_map")
    page = parsed(report(open_runs([folder]), ""))
    ((values, same),) = found.values()
    for on, value in names.items():
        for of in names:
            assert values.loc[on, of] == value - 9 * (on != of)
            assert same.loc[on, of] == (on == of)
    (table,) = [t for t in page.all("table") if t.all("caption")[0].text.startswith("Transfer")]
    assert cells(table)[1][1:] == ["(99.0 98.0–100)", "90.0 89.0–91.0"]


def test_two_networks_are_not_mistaken_for_each_other(tmp_path):
    folders = [
        write(tmp_path / f"far_s{seed}", whole_run(), seeds=(seed,), experiment="far")
        for seed in ("0", "1")
    ]
    page = parsed(report(open_runs(folders), ""))
    chapters = page.all("section", "chapter")[:2]
    for seed, chapter in zip("01", chapters):
        for words in chapter.all("caption") + chapter.all("figcaption"):
            assert f"width 16, seed {seed}" in words.text
            assert f"far_s{seed}" in words.text
            assert f"seed {1 - int(seed)}" not in words.text
    captions = [caption.text for caption in page.all("caption")]
    assert len(captions) == len(set(captions))
    assert [line[0] for line in cells(page.all("table")[0])] == ["far far_s0", "far far_s1"]


def test_pictures_of_several_networks_name_theirs(tmp_path):
    rows = everything("ood", "patches", "msp", 91.2)
    folder = write(tmp_path / "quickstart", rows, costs="", seeds=("0", "7"))
    (folder / "figures").mkdir()
    for seed in ("0", "7"):
        Image.new("RGB", (9, 9)).save(folder / "figures" / f"scores_msp_s{seed}.png")
    seal(folder)
    page = parsed(report(open_runs([folder]), ""))
    told = [i.attributes["alt"] for i in page.all("img") if "scores" in i.attributes["alt"]]
    assert ["network of seed 0" in told[0], "network of seed 7" in told[1]] == [True, True]
    assert all("scores of msp" in one for one in told)


def test_where_it_came_from_and_how_to_repeat_it(page):
    (told,) = page.all("section", id="run-1-quickstart-provenance")
    for word in ("0123456789abcdef, with changes that are in no commit", "torch 2.14.1", "A & B",
                 "weights0", "abc", "2026-05-01T10:00:00+0000", "confidence: 0.95"):  # fmt: skip
        assert word in told.text
    (again,) = page.all("section", id="run-1-quickstart-repeat")
    assert "git checkout 0123456789abcdef" in again.text
    assert "gradbench run experiment=quickstart 'challenges=[<a>]'" in again.text
    assert "gradbench report <one>" in page.all("section", id="again")[0].text


def test_warnings_are_said_first(tmp_path):
    rows = [
        *everything("ood", "patches", "msp", 41.2),
        *everything("ood", "patches", "gradient", 90.0),
        auroc("control", "random_labels", "gradient", 70.0, p=1e-05, p_holm=2e-05),
        auroc("control", "round_trip:patches", "gradient", 95.0),
        auroc("control", "round_trip:patches", "msp", 49.0),
    ]
    page = parsed(report(open_runs([write(tmp_path / "run", rows)]), ""))
    said = [item.text for item in page.all("ul", "highlights")[0].all("li")]
    assert said[0] == "Highest AUROC of 1 challenge: gradient on 1."
    assert said[1] == "Warning: gradient tells random labels apart (p = 1e-05, Holm 2e-05)."
    assert said[2].endswith("or better: gradient (95.0 against 90.0).")
    assert said[3] == "Below chance, so inverted: patches: msp (41.2 40.2–42.2)."
    assert len(said) == 4


def test_marks_of_a_narrow_network_and_of_a_part(tmp_path):
    folder = write(
        tmp_path / "run",
        everything("ood", "patches", "msp", 91.2),
        costs="",
        backbone="resnet18",
        width=32,
    )
    told = json.loads((folder / "run.json").read_text())
    told["config"] |= {"backbone": {"name": "resnet18", "width": 32}, "limit": 360}
    (folder / "run.json").write_text(json.dumps(told))
    page = parsed(report(open_runs([folder]), ""))
    (marks,) = page.all("ul", id="run-1-quickstart-marks")
    assert "resnet18 of width 32 instead of 64" in marks.text
    assert "360 clean test images of digits, not all of them" in marks.text


def test_the_papers_tables_that_the_runs_fill_stand_beside(tmp_path):
    names = {"experiment": "ood_cifar10_far", "in_dist": "cifar10", "backbone": "resnet18"}
    rows = [row | names for row in everything("ood", "svhn", "msp", 91.2)]
    folder = write(tmp_path / "run", rows, costs="", **names, width=64)
    page = parsed(report(open_runs([folder]), ""))
    (table,) = page.all("section", "paper-table")
    assert table.attributes["id"] == "table-ood"
    assert "91.2" in table.text


def test_runs_that_fill_no_table_have_none_beside(page):
    assert not page.all(id="published")
