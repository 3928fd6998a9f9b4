import re

import pytest
from made_rows import ABOUT, auroc, missing, run_frame, whole_run

from gradbench.report.numbers import percent, with_interval, with_range
from gradbench.report.run_rows import Line, RunRows
from gradbench.report.run_tables import write_markdown, write_terminal
from gradbench.run.rows import frame, hole, mean_of, read_csv, write_csv


def section(text, title):
    return text.split(f"## {title}\n")[1].split("\n## ")[0]


def cells(text, *start):
    """Return the cells of the one table row of a text that begins with the given cells."""
    rows = [[c.strip() for c in line.strip("|").split("|")] for line in text.splitlines()]
    found = [row for row in rows if row[: len(start)] == list(start)]
    assert len(found) == 1
    return found[0]


def test_a_number_is_written_as_0_or_100_only_where_it_is():
    assert [percent(v) for v in (100, 99.96, 99.999, 0, 0.049, 97.25, 50)] == (
        ["100", "99.96", "99.999", "0", "0.05", "97.2", "50.0"]
    )


def test_an_exact_bound_is_one_sided_and_other_intervals_are_not():
    assert with_interval(100, 98.7, 100, "exact one-sided lower bound") == "100 (≥ 98.7)"
    assert with_interval(99.2, 98.7, 100, "") == "99.2 98.7–100"
    assert with_interval(50, 50, 50) == "50.0"


def test_several_values_are_their_mean_and_range():
    assert with_range([90.0, 92.0, 97.0]) == "93.0 (90.0–97.0)"


def test_what_is_missing_of_one_measure_is_no_reason_for_another():
    here = {"role": "main", "challenge_set": "adversarial", "challenge": "fgsm", "level": None}
    own = {"method": "odin@fgsm", "protocol": "grouped", "fold": "all"}
    half = {"metric": "detection_accuracy", "threshold_rule": "half"}
    rows = [
        auroc("adversarial", "fgsm", "odin@fgsm", 65.6),
        hole("it says 0.5 nowhere", **here, **own, **half),
        hole("not at hand", **here | {"challenge": "cw"}),
    ]
    rows = RunRows(frame(rows), "transfer")
    fgsm, cw = (Line("main", "adversarial", name, "") for name in ("fgsm", "cw"))
    assert rows.cell(fgsm, "odin@fgsm").reason == ""
    assert rows.cell(cw, "odin@fgsm").reason == "not at hand"


def test_the_head_tells_the_conventions():
    text = write_markdown(run_frame(), ABOUT)
    head = text.split("## AUROC")[0]
    for words in (
        *("# quickstart", ABOUT["remark"], "digits, 360 test images", "small_cnn of width 16"),
        *("97.2 %", "`grouped`", "higher = more abnormal", "`gradbench run experiment=quickstart`"),
    ):
        assert words in head
    assert cells(head, "gradient")[1:3] == ["squared_norms/ones/bce", "training"]
    assert cells(head, "msp")[2:] == ["none", "nothing", "none"]


def test_a_cell_of_the_main_table_holds_value_and_interval_and_the_highest_is_bold():
    main = section(write_markdown(run_frame(), ABOUT), "AUROC")
    assert cells(main, "patches") == (
        ["patches", "", "1000", "official", "91.2 90.0–92.5", "**100** (≥ 98.7)"]
    )
    assert cells(main, "gaussian_noise", "3")[-2:] == ["71.5 70.5–72.5", "**86.5** 85.5–87.5"]


def test_few_abnormal_images_are_marked_where_the_count_stands():
    few = "part of it; indicative: fewer than 500 abnormal images"
    rows = [
        auroc("ood", name, "msp", 90.0, n_abnormal=count, note=note)
        for name, count, note in (("svhn", 499, few), ("textures", 500, ""))
    ]
    text = section(write_markdown(frame(rows), ABOUT), "AUROC")
    assert cells(text, "svhn")[1] == "499, indicative"
    assert cells(text, "textures")[1] == "500"
    assert "- indicative: fewer than 500 abnormal images; small differences may be chance." in text
    assert "- svhn: part of it." in text


def test_equal_values_are_not_bold():
    rows = [auroc("ood", "svhn", name, 90.0) for name in ABOUT["detectors"]]
    assert "**" not in write_markdown(frame(rows), ABOUT)


def test_a_hole_points_to_its_reason():
    main = section(write_markdown(run_frame(), ABOUT), "AUROC")
    assert cells(main, "svhn")[-2:] == ["– (a)", "– (a)"]
    assert "- (a) not measured: svhn/test.npz is not under data.root" in main


def test_a_hole_of_one_detector_has_a_reason_of_its_own():
    hole = missing("ood", "svhn", "needs a bank") | {"method": "msp", "protocol": "grouped"}
    rows = [hole | {"metric": "auroc", "fold": "all"}, auroc("ood", "svhn", "gradient", 90.0)]
    main = section(write_markdown(frame(rows), ABOUT), "AUROC")
    assert cells(main, "svhn")[-2:] == ["– (a)", "90.0 89.0–91.0"]
    assert "(a) not measured: needs a bank" in main


@pytest.mark.parametrize("source", ["part", "stand_in", "regenerated", "generated"])
def test_a_source_that_is_not_official_has_a_foot_note(source):
    main = section(
        write_markdown(frame([auroc("ood", "s", "msp", 90, source=source)]), ABOUT), "AUROC"
    )
    assert source in cells(main, "s")
    assert f"\n- {source}: " in main
    official = write_markdown(frame([auroc("ood", "s", "msp", 90)]), ABOUT)
    assert f"- {source}: " not in official


def test_notes_on_the_images_stand_below_the_main_table_without_those_on_intervals():
    main = section(write_markdown(run_frame(), ABOUT), "AUROC")
    assert "- patches: resized; resized from 64x64." in main
    assert "disjoint pairs" not in main


def test_all_measures_stand_under_their_own_header():
    table = section(write_markdown(run_frame(), ABOUT), "All measures")
    header = cells(table, "challenge")
    row = dict(zip(header, cells(table, "gaussian_noise", "5", "msp")))
    assert row["AUPR in"] == "79.7"
    assert row["AUPR out"] == "79.4"
    assert row["AUPR out, balanced"] == "78.8"
    assert [row[f"accuracy, {rule}"] for rule in ("best", "choose", "0.5")] == (
        ["78.5", "78.2", "77.9"]
    )
    assert [row[f"FPR95, {side}"] for side in ("normal", "abnormal")] == ["77.6", "77.3"]
    assert "svhn" not in table


def test_attacks_show_success_and_size():
    assert cells(section(write_markdown(run_frame(), ABOUT), "Attacks"), "fgsm") == (
        ["fgsm", "83.3", "0.813"]
    )


def test_controls_show_p_and_the_set_itself_below_its_round_trip():
    table = section(write_markdown(run_frame(), ABOUT), "Controls")
    assert cells(table, "identity") == ["identity", "50.0", "50.0"]
    assert cells(table, "random_labels")[1:] == ["", "50.3 49.3–51.3, p = 0.43, Holm 0.86"]
    assert cells(table, "round_trip:patches")[1:] == ["49.8 48.8–50.8", "55.1 54.1–56.1"]
    lines = table.splitlines()
    (place,) = (i for i, line in enumerate(lines) if "| round_trip:patches" in line)
    assert cells(lines[place + 1], "patches")[1] == "91.2 90.0–92.5"
    assert "(!)" not in table


def test_identity_is_shown_whatever_the_protocol_of_the_run():
    rows = [auroc("control", "identity", "msp", 50.0), auroc("ood", "svhn", "msp", 90.0)]
    rows[1]["protocol"] = "unsupervised"
    table = section(write_markdown(frame(rows), ABOUT | {"protocol": "unsupervised"}), "Controls")
    assert cells(table, "identity") == ["identity", "50.0"]


def test_identity_has_no_interval():
    rows = [auroc("control", "identity", "msp", 50.0, 44.0, 56.0)]
    table = section(write_markdown(frame(rows), ABOUT), "Controls")
    assert cells(table, "identity") == ["identity", "50.0"]


def test_random_labels_that_are_told_apart_are_marked():
    rows = [
        auroc("control", "random_labels", "gradient", 58.0, p=1e-05, p_holm=2e-05),
        auroc("control", "random_labels", "msp", 50.0, p=0.001, p_holm=0.001),
    ]
    table = section(write_markdown(frame(rows), ABOUT), "Controls")
    assert cells(table, "random_labels")[1:] == (
        ["50.0 49.0–51.0, p = 0.001, Holm 0.001", "58.0 57.0–59.0, p = 1e-05, Holm 2e-05 (!)"]
    )
    assert "\n- (!) p below 0.001" in table


def test_the_random_split_stands_beside_the_protocol_for_those_measured_with_it():
    table = section(write_markdown(run_frame(), ABOUT), "Random split")
    assert cells(table, "fgsm", "random") == ["fgsm", "random", "98.5 97.5–99.5"]
    assert cells(table, "fgsm", "grouped") == ["fgsm", "grouped", "97.9 96.9–98.9"]
    assert "patches" not in table


def test_a_run_with_a_random_split_shows_it_in_the_main_table():
    rows = [auroc("ood", "svhn", "msp", 90.0, protocol="random", role="main")]
    text = write_markdown(frame(rows), ABOUT | {"protocol": "random"})
    assert cells(text, "svhn")[-1] == "90.0 89.0–91.0"
    assert "## Random split" not in text


def test_several_networks_are_shown_with_mean_and_range():
    about = ABOUT | {"accuracy": {0: 0.97, 1: 0.98}}
    rows = []
    for seed, values in ((0, (90.0, 95.0)), (1, (94.0, 96.0))):
        for name, value in zip(ABOUT["detectors"], values):
            more = {"seed": seed, "n_abnormal": 300 + seed}
            rows.append(auroc("adversarial", "fgsm", name, value, **more))
        p = {"p": (seed + 1) / 10, "p_holm": (seed + 2) / 10}
        rows.append(auroc("control", "random_labels", "gradient", 50 + seed, seed=seed, **p))
    text = write_markdown(frame(rows), about)
    main = section(text, "AUROC")
    assert cells(main, "fgsm")[1:] == (
        ["300–301", "official", "92.0 (90.0–94.0)", "**95.5** (95.0–96.0)"]
    )
    assert "mean of 2 networks" in main
    assert "97.0, 98.0 % (seeds 0, 1)" in text
    assert "50.5 (50.0–51.0), smallest p = 0.1, Holm 0.2" in text


def test_equal_rows_give_equal_bytes_whatever_their_order_and_after_a_file(tmp_path):
    write_csv(run_frame(), tmp_path / "results.csv")
    text = write_markdown(run_frame(), ABOUT)
    assert write_markdown(frame(reversed(whole_run())), ABOUT) == text
    assert write_markdown(read_csv(tmp_path / "results.csv"), ABOUT) == text


def test_the_terminal_shows_the_main_table_in_line():
    text = write_terminal(run_frame(), ABOUT)
    assert ABOUT["remark"] in text
    assert "– (a)" in " ".join(text.split())
    assert "(a) not measured: svhn/test.npz" in text
    lines = text.splitlines()
    (header,) = (line for line in lines if line.startswith("challenge"))
    (patches,) = (line for line in lines if line.startswith("patches  "))
    assert patches.index("100* (≥ 98.7)") == header.index("gradient")
    assert "All measures" not in text
    assert "|" not in text


def test_a_bar_in_a_name_does_not_break_the_table():
    main = section(write_markdown(frame([auroc("ood", "a|b", "msp", 90.0)]), ABOUT), "AUROC")
    assert "| a\\|b" in main


def gap(challenge_set, challenge, method, best, lo, hi):
    ends = {"lo": lo, "hi": hi, "metric": "auroc_difference", "compared_with": best}
    return auroc(challenge_set, challenge, method, (lo + hi) / 2, **ends)


def test_no_two_rows_are_called_the_same_where_two_sets_have_a_mean():
    rows = whole_run()
    for kind, value in (("ood", 70.0), ("corruption", 60.0)):
        rows += [auroc(kind, mean_of(kind), name, value + i)
                 for i, name in enumerate(ABOUT["detectors"])]  # fmt: skip
    text = write_markdown(frame(rows), ABOUT)
    assert cells(section(text, "AUROC"), "mean:ood")[-2:] == [
        "70.0 69.0–71.0",
        "**71.0** 70.0–72.0",
    ]
    assert cells(section(text, "AUROC"), "mean:corruption")[-1] == "**61.0** 60.0–62.0"
    assert not re.search(r"^\| mean +\|", text, re.MULTILINE)
    told = write_terminal(frame(rows), ABOUT)
    assert "mean:ood" in told
    assert "mean:corruption" in told


@pytest.mark.parametrize(
    ("lo", "hi", "mark"), [(-2.0, 0.5, "≈"), (-2.0, 0.0, "≈"), (-2.0, -0.001, "")]
)
def test_a_mark_is_an_interval_of_the_difference_that_holds_zero(lo, hi, mark):
    """Whatever p says beside it."""
    rows = [auroc("ood", "svhn", "msp", 89.0), auroc("ood", "svhn", "gradient", 90.0)]
    rows.append(gap("ood", "svhn", "msp", "gradient", lo, hi) | {"p": 0.04, "p_holm": 0.9})
    text = write_markdown(frame(rows), ABOUT)
    assert cells(text, "svhn")[-2] == f"89.0{mark} 88.0–90.0"
    assert ("not distinguishable from the highest" in text) == bool(mark)
