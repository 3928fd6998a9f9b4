"""The picture is drawn from what the CSVs hold."""

import csv

import pytest

from gradbench.bench import picture
from gradbench.errors import GradbenchError

COLUMNS = ("contender", "ratio", "ratio_low", "ratio_high", "backbone", "batch", "image_size")


def table(path, contenders):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow((*COLUMNS, "device", "threads"))
        for name, ratio in contenders.items():
            spread = ("", "") if ratio == "" else (ratio * 0.9, ratio * 1.1)
            writer.writerow((name, ratio, *spread, "small_cnn", 4, 8, "cpu", 1))


def test_rows_without_a_ratio_or_of_the_step_are_left_out(tmp_path):
    path = tmp_path / "engine-a.csv"
    table(path, {"step": 1.0, "engine": 0.9, "loop": 3.0, "vmap": ""})
    assert [row["contender"] for row in picture.read(path)] == ["engine", "loop"]
    table(path, {"step": 1.0, "loop": 3.0})
    assert picture.read(path) == []


def test_the_picture_is_drawn(tmp_path):
    table(tmp_path / "engine-a.csv", {"engine": 0.9, "loop": 3.0})
    table(tmp_path / "engine-b.csv", {"engine": 1.1, "vmap": 2.0})
    picture.main(["--out", str(tmp_path)])
    assert (tmp_path / "ratios.png").read_bytes()[:4] == b"\x89PNG"


def test_a_folder_without_tables_is_refused(tmp_path):
    with pytest.raises(GradbenchError, match="bench engine"):
        picture.main(["--out", str(tmp_path)])
