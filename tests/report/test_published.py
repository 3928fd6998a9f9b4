"""Published numbers, and the tables that show them: every one exactly once."""

import pandas
import pytest

from gradbench.errors import GradbenchError
from gradbench.report.papers.table import read_table, table_files
from gradbench.report.published import COLUMNS, NAMING, published_files, read_published

TABLES = [read_table(name) for name in table_files()]


FILES = {name: read_published(path) for name, path in published_files().items()}
NUMBERS = pandas.concat(FILES.values())


def test_every_published_number_is_in_exactly_one_table():
    shown = pandas.concat(table.printed for table in TABLES)
    assert not shown.duplicated(list(NAMING)).any()
    assert set(map(tuple, shown[list(COLUMNS)].to_numpy())) == set(map(tuple, NUMBERS.to_numpy()))
    assert len(shown) == len(NUMBERS) == 1405


@pytest.mark.parametrize(
    ("naming", "value"),
    [
        (("ood", "SVHN", "LSUN", "Ours", "auroc"), "99.93"),
        (("ood", "CIFAR-10", "TinyImageNet", "Mahalanobis (P+FE)", "auroc"), "99.68"),
        (("adversarial", "", "C&W", "LID", "auroc"), "76.47"),
    ],
)
def test_numbers_stand_as_they_were_printed(naming, value):
    columns = ["table", "in_dist", "challenge", "method", "metric"]
    assert value in set(NUMBERS.set_index(columns).loc[[naming], "value"])


def test_sums_of_the_files_are_those_of_the_print():
    # of the transcription that was compared with every deck, cell by cell
    sums = {name: one["value"].astype(float).sum() for name, one in FILES.items()}
    assert sums == pytest.approx(SUMS)


SUMS = {
    "adversarial": 6696.22,
    "contrastive_recognition": 651.72,
    "corruption": 14356.5,
    "domain_adaptation": 3198.37,
    "gradcon_cifar10": 117.757,
    "gradcon_efficiency": 27025308.8,
    "gradcon_fmnist": 27.757,
    "gradcon_mnist": 99.146,
    "introspective_active_learning": 12.6,
    "introspective_ood": 2352.97,
    "introspective_plugin": 890.23,
    "iqa": 237.737,
    "ood": 8101.83,
    "openood": 10836.96,
    "saliency": 20.4738,
}


def test_the_origin_of_all_decks_and_papers_is_told():
    about = published_files()["ood"].with_name("README.md").read_text(encoding="utf-8")
    decks = {deck for decks in NUMBERS["source"] for deck in decks.split(";")}
    assert all(f"| `{name}` |" in about for name in {*NUMBERS["paper"], *decks})


HEAD = ",".join(COLUMNS)
GOOD = "t,p,,A,ood,B,,m,,auroc,percent,1.0,1,deck,"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{HEAD}\n{GOOD.replace('1.0', 'x')}\n", "line 2: 'x' is not a number"),
        (f"{HEAD}\n{GOOD.replace('percent', 'per cent')}\n", "did you mean percent"),
        (f"{HEAD}\n{GOOD}\n{GOOD}\n", "line 3: the same number"),
        (f"{HEAD}\n{GOOD},more\n", "line 2: it does not have 15 columns"),
        ("table,paper\n", "holds no published numbers"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, text, said):
    path = tmp_path / "x.csv"
    path.write_text(text)
    with pytest.raises(GradbenchError, match=said):
        read_published(path)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_a_table_says_how_it_was_made(table):
    assert table.title
    assert table.description
    assert set(table.compare) <= set(NAMING)
    placed = set(table.places["cell"])
    assert all(hole or cell in placed for cell, hole in table.printed["hole"].items())
