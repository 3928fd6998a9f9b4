"""`gradbench bench corruptions`: its table and file, and what it refuses."""

import csv

import pytest
from _runs import gradbench, one_sentence

SMALL = (
    *("bench", "corruptions", "--images", "4", "--image-size", "8", "--rounds", "2"),
    *("--threads", "1", "--out", "out"),
)


def test_every_level_of_the_named_families_is_measured(tmp_path):
    ran = gradbench(*SMALL, "--families", "fog,contrast", "--table", "imagenet", cwd=tmp_path)
    assert ran.code == 0, ran.err
    with open(tmp_path / "out/corruptions-imagenet-8px-cpu-1thread.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(r["family"], r["level"]) for r in rows] == [
        (family, str(level)) for family in ("fog", "contrast") for level in range(1, 6)
    ]
    for row in rows:
        low, middle, high = (float(row[f"seconds{end}"]) for end in ("_low", "", "_high"))
        assert 0 < low <= middle <= high
        assert float(row["images_per_second"]) == pytest.approx(10_000 / middle, rel=1e-3)
        assert float(row["cpu_seconds"]) > 0
        assert (row["table"], row["threads"], row["rounds"]) == ("imagenet", "1", "2")
        assert row["processor"]
        assert row["command"].startswith("gradbench bench corruptions")
    lines = ran.out.splitlines()
    assert lines[1].split()[0] == "family"
    assert lines[2].split()[0] == "fog"
    assert len(lines[2].split()) == 6


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--families", "fogg"), "no family of corruptions named 'fogg': did you mean fog"),
        (("--table", "small"), "no table of constants named 'small': valid choices are cifar"),
        (("--image-size", "5000"), "--image-size 5000: at most 427"),
        (("--rounds", "0"), "0 is no whole number of at least 1"),
    ],
)
def test_bad_input_is_one_sentence(words, text, tmp_path):
    assert text in one_sentence(gradbench(*SMALL, *words, cwd=tmp_path))
