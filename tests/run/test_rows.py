import csv
import os

import numpy as np
import pandas
import pytest

from gradbench.errors import GradbenchError
from gradbench.run.rows import (
    COLUMNS,
    frame,
    hole,
    is_mean,
    mean_of,
    measured_row,
    read_csv,
    row,
    write_csv,
)
from gradbench.statistics.bootstrap import FoldScores
from gradbench.statistics.intervals import MetricEstimate, measure_detection


@pytest.fixture
def rows():
    return [
        row(experiment="e", challenge="noise", level=10, method="msp", value=99.123456789,
            lo=-0.0, hi=np.float64(100), n_normal=np.int64(5), detector_seed=7, unit="percent"),
        row(experiment="e", challenge="noise", level=2.0, method="msp", value=1 / 3, train_seed=0,
            note='one, "two"\nthree – ü'),
        hole("the folder is missing", experiment="e", challenge="svhn", method="inf"),
        row(experiment="e", challenge="noise", level=2, method="gradient", value=float("nan")),
    ]  # fmt: skip


def test_columns_are_those_of_the_architecture():
    assert COLUMNS[:3] == ("experiment", "backbone", "width")
    assert COLUMNS[-15:] == ("threshold_rule", "value", "lo", "hi", "p", "p_holm", "p_folds",
                             "test", "n_normal", "n_abnormal", "unit", "note",
                             "n_listed", "n_at_hand", "matched")  # fmt: skip
    assert len(set(COLUMNS)) == len(COLUMNS) == 37
    assert tuple(row()) == COLUMNS


def test_text_is_no_formula_in_a_spreadsheet_and_comes_back(tmp_path):
    notes = ["=1+1", "'=1", "-x", "@a", "+1", "a=b"]
    table = frame(row(challenge=f"c{i}", value=-1.5, note=n) for i, n in enumerate(notes))
    write_csv(table, tmp_path / "a.csv")
    with open(tmp_path / "a.csv", newline="") as file:
        cells = {line["challenge"]: (line["note"], line["value"]) for line in csv.DictReader(file)}
    shown = ["'=1+1", "''=1", "'-x", "'@a", "+1", "a=b"]
    assert cells == {f"c{i}": (text, "-1.5") for i, text in enumerate(shown)}
    pandas.testing.assert_frame_equal(read_csv(tmp_path / "a.csv"), table)


def test_an_unknown_column_is_named_with_its_neighbours():
    with pytest.raises(GradbenchError, match="no column named 'chalenge': did you mean challenge"):
        row(chalenge="noise")


def test_frames_are_typed_and_sorted_with_levels_as_numbers(rows):
    table = frame(rows)
    assert tuple(table.columns) == COLUMNS
    assert table["level"].tolist() == ["2", "2", "10", "0"]
    assert table["method"].tolist() == ["gradient", "msp", "msp", "inf"]
    assert table["value"].dtype == "float64"
    assert table["train_seed"].dtype == "Int64"
    assert table["value"].isna().tolist() == [True, False, False, True]
    assert table["note"].iloc[3] == "not measured: the folder is missing"


def test_order_of_measurement_does_not_matter(rows):
    pandas.testing.assert_frame_equal(frame(rows), frame(rows[::-1]))


def test_files_round_trip_byte_for_byte(rows, tmp_path):
    first, second = tmp_path / "a.csv", tmp_path / "b.csv"
    table = frame(rows)
    write_csv(table, first)
    back = read_csv(first)
    pandas.testing.assert_frame_equal(back, table)
    write_csv(back, second)
    assert first.read_bytes() == second.read_bytes()
    text = first.read_bytes().decode()
    assert text.splitlines()[0] == ",".join(COLUMNS[:-3])
    assert "\r" not in text
    assert ",0.333333," in text
    assert ",99.123457,0.0,100.0,,,,,5," in text
    assert sorted(os.listdir(tmp_path)) == ["a.csv", "b.csv"]


def test_rows_of_a_table_make_the_same_table(rows):
    table = frame(rows)
    pandas.testing.assert_frame_equal(frame(table.to_dict("records")), table)


def test_measured_numbers_become_percent(tmp_path):
    groups = np.array([f"a/{i}" for i in range(60)])
    fold = FoldScores(np.arange(60.0), groups, np.arange(60) + 20.0, np.char.add(groups, "x"))
    results = measure_detection([fold], replicates=50)
    rows = [measured_row(r, method="msp", note="part") for r in results]
    first = rows[0]
    assert (first["metric"], first["unit"]) == ("auroc", "percent")
    assert first["note"] == "part; indicative: fewer than 500 abnormal images"
    assert first["value"] == 100 * results[0].value
    table = frame(rows).set_index(["metric", "side", "threshold_rule"])
    missing = table.loc[("detection_accuracy", "", "half")]
    assert np.isnan(missing["value"])
    assert missing["note"].startswith("part; not measured: ")
    assert table.loc[("fpr95", "normal", ""), "n_abnormal"] == 60


def test_few_abnormal_images_are_marked_and_500_are_not():
    few, enough = (
        MetricEstimate("auroc", "", "", 0.9, 0.8, 0.95, (), 1000, count, "a note")
        for count in (499, 500)
    )
    assert measured_row(few)["note"] == "indicative: fewer than 500 abnormal images; a note"
    assert measured_row(enough)["note"] == "a note"


def test_values_of_the_wrong_kind_are_named():
    with pytest.raises(GradbenchError, match="column value holds 'high', which is not a number"):
        frame([row(value="high")])
    for seed in (1.5, "one"):
        with pytest.raises(GradbenchError, match=r"train_seed .* not a whole number"):
            frame([row(train_seed=seed)])


def test_faulty_files_are_one_sentence(rows, tmp_path):
    with pytest.raises(GradbenchError, match=r"cannot write .*No such file"):
        write_csv(frame(rows), tmp_path / "missing" / "a.csv")
    with pytest.raises(GradbenchError, match=r"cannot read .*No such file"):
        read_csv(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text("paper,value\nx,1\n")
    with pytest.raises(GradbenchError, match=r"no table of results .*that differ: backbone"):
        read_csv(tmp_path / "a.csv")


def test_no_challenge_vanishes_from_a_pivot_for_want_of_levels(tmp_path):
    made = [("ood", "svhn", None, 90), ("ood", "gtsrb", None, 80),
            ("ood", mean_of("ood"), None, 85),
            ("corruption", "fog", 1, 60), ("corruption", "fog", 5, 70),
            ("corruption", mean_of("corruption"), None, 65)]  # fmt: skip
    table = frame([row(challenge_set=kind, challenge=name, level=level, method="msp", value=value)
                   for kind, name, level, value in made])  # fmt: skip
    write_csv(table, tmp_path / "a.csv")
    for read in (table, read_csv(tmp_path / "a.csv"), pandas.read_csv(tmp_path / "a.csv")):
        wide = read.pivot_table("value", index=["challenge", "level"], columns="method")
        assert len(wide) == len(made)
        assert sorted(wide["msp"]) == sorted(value for *_, value in made)
    # a level stays a number to pandas
    assert pandas.read_csv(tmp_path / "a.csv")["level"].tolist() == [1, 5, 0, 0, 0, 0]
    assert [*map(is_mean, ("mean:ood", "mean", "meanwhile", "svhn"))] == [True, True, False, False]


def test_probabilities_keep_their_digits_however_small(tmp_path):
    table = frame([row(p=1.23456789e-17, p_holm=np.float64(0.5), p_folds=None, value=0.5)])
    write_csv(table, tmp_path / "a.csv")
    back = read_csv(tmp_path / "a.csv")
    assert (back["p"][0], back["p_holm"][0]) == (1.23457e-17, 0.5)
    assert np.isnan(back["p_folds"][0])


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("percent,", "percent,,,", r"row \d has not \d+ columns"),
        (",percent", "", r"row \d has not \d+ columns"),
        (",10,", ",", r"row \d has not \d+ columns"),
        (",5,", f",{2**63},", "column n_normal holds '9223372036854775808', which is not a whole"),
        (",5,", f",{'9' * 5000},", "column n_normal holds '9{40}', which"),
        (",5,", ",5x,", "column n_normal holds '5x', which is not a whole number"),
        ("99.123457", "\x1b[1m", r"column value holds '\x1b\[1m', which is not a number"),
        ("percent", '"percent', "unexpected end of data"),
    ],
)
def test_damaged_rows_are_one_sentence(rows, tmp_path, old, new, said):
    path = tmp_path / "a.csv"
    write_csv(frame(rows), path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(GradbenchError, match=rf"a\.csv.*{said}"):
        read_csv(path)
    path.write_bytes(text.encode("latin-1", "replace"))
    with pytest.raises(GradbenchError, match=r"cannot read .*a\.csv"):
        read_csv(path)


def test_a_failed_write_leaves_the_old_file(rows, tmp_path, monkeypatch):
    path = tmp_path / "a.csv"
    write_csv(frame(rows), path)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(GradbenchError, match="No space left on device"):
        write_csv(frame(rows[:1]), path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.csv"]


def test_only_runs_with_published_lists_have_columns_for_them(tmp_path, rows):
    """Files of all other runs stay as they were, and can be read."""
    write_csv(frame(rows), tmp_path / "without.csv")
    table = frame([*rows, row(challenge="svhn", n_listed=26032, n_at_hand=0, matched="")])
    write_csv(table, tmp_path / "with.csv")
    headers = [(tmp_path / f"{name}.csv").open().readline().strip() for name in ("without", "with")]
    assert headers[0].split(",")[-1] == "note"
    assert headers[1] == f"{headers[0]},n_listed,n_at_hand,matched"
    assert read_csv(tmp_path / "without.csv")["n_listed"].isna().all()
    pandas.testing.assert_frame_equal(read_csv(tmp_path / "with.csv"), table)
