"""Published numbers, and the tables that show them: every one exactly once."""

from collections import Counter

import pytest

from gradbench.errors import GradbenchError
from gradbench.report import published
from gradbench.report.papers.spec import read_table, table_files
from gradbench.report.published import NAMING

TABLES = [read_table(name) for name in table_files()]


def everything():
    return [(name, one) for name, path in published.files().items() for one in published.load(path)]


def test_every_published_number_is_in_exactly_one_table():
    shown = Counter(wanted.printed for table in TABLES for wanted in table.wanted)
    assert set(shown.values()) == {1}
    assert set(shown) == {one for _, one in everything()}
    assert len(shown) == 1161


@pytest.mark.parametrize(
    ("naming", "value"),
    [
        (("ood", "SVHN", "LSUN", "Ours", "auroc"), "99.93"),
        (("ood", "CIFAR-10", "TinyImageNet", "Mahalanobis (P+FE)", "auroc"), "99.68"),
        (("adversarial", "", "C&W", "LID", "auroc"), "76.47"),
    ],
)
def test_numbers_stand_as_they_were_printed(naming, value):
    found = [
        one.value
        for _, one in everything()
        if (one.table, one.in_dist, one.challenge, one.method, one.metric) == naming
    ]
    assert value in found


def test_sums_of_the_files_are_those_of_the_print():
    sums = Counter()
    for name, one in everything():
        sums[name] += round(one.number * 1e4)
    # of the transcription that was compared with every deck, cell by cell
    assert {name: total / 1e4 for name, total in sums.items()} == pytest.approx(SUMS)


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
    "saliency": 20.4738,
}


def test_no_file_names_a_machine():
    for path in published.FOLDER.iterdir():
        if path.suffix in (".csv", ".md"):
            text = path.read_text(encoding="utf-8")
            assert "/work" not in text
            assert ".txt" not in text


def test_the_origin_of_all_decks_and_papers_is_told():
    told = (published.FOLDER / "README.md").read_text(encoding="utf-8")
    for _, one in everything():
        assert f"| `{one.paper}` |" in told
        assert all(f"| `{deck}` |" in told for deck in one.source.split(";"))


HEAD = ",".join(published.Printed._fields)
GOOD = "t,p,,A,ood,B,,m,,auroc,percent,1.0,1,deck,"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{HEAD}\n{GOOD.replace('1.0', 'x')}\n", "line 2: 'x' is no number"),
        (f"{HEAD}\n{GOOD.replace('percent', 'per cent')}\n", "did you mean percent"),
        (f"{HEAD}\n{GOOD}\n{GOOD}\n", "line 3: the same number"),
        (f"{HEAD}\n{GOOD},more\n", "line 2: 16 columns, not 15"),
        ("table,paper\n", "holds no published numbers"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, text, said):
    path = tmp_path / "x.csv"
    path.write_text(text)
    with pytest.raises(GradbenchError, match=said):
        published.load(path)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_a_table_says_how_it_was_made(table):
    assert table.title
    assert table.description
    assert set(table.compare) <= set(NAMING)
    for wanted in table.wanted:
        assert wanted.hole or (wanted.detector and wanted.places)
