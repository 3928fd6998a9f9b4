"""Files of tables: rules, preferences, and one sentence for what they cannot say."""

import pytest
from _made_runs import TABLE, own_table

from gradbench.config import group_files
from gradbench.errors import GradbenchError
from gradbench.report.papers.spec import read_table


def wanted(table, **columns):
    (found,) = [
        one
        for one in table.wanted
        if all(getattr(one.printed, name) == value for name, value in columns.items())
    ]
    return found


def challenges(one):
    return [place.challenge for place in one.places]


def test_cells_of_ood_are_measured_where_the_paper_did_or_where_that_can_be_had():
    table = read_table("ood")
    one = wanted(table, in_dist="CIFAR-10", challenge="LSUN", method="Ours", metric="auroc")
    assert one.detector == "gradient"
    assert challenges(one) == ["lsun_odin_resize", "lsun", "scenes"]
    assert [place.preferred for place in one.places] == ["", *["lsun_odin_resize"] * 2]
    assert one.places[0].experiments == ("ood_cifar10", "ood_cifar10_far")
    other = wanted(table, in_dist="SVHN", challenge="CIFAR-10", method="ODIN", metric="aupr")
    (place,) = other.places
    assert (other.detector, place.in_dist, place.challenge) == ("odin", "svhn", "cifar10")
    assert not other.metric.difference
    assert other.metric.lines["balanced"] == ("aupr_balanced", "out", "")
    best = table.metrics["detection_accuracy"].lines["measured"]
    assert best == ("detection_accuracy", "", "best")


def test_cure_tsr_goes_before_its_stand_in():
    table = read_table("corruption")
    one = wanted(table, in_dist="CURE-TSR", challenge="Decolor", level="4", method="Ours")
    real, other = one.places
    assert (real.in_dist, real.challenge, real.level) == ("cure_tsr", "decolor", "4")
    assert (other.in_dist, other.challenge) == ("gtsrb", "cure_like_decolorization")
    assert other.experiments == ("corruption_gtsrb",)
    assert (real.stand_in, other.stand_in[:24]) == ("", "GTSRB in place of CURE-T")


def test_two_networks_of_the_adversarial_table():
    table = read_table("adversarial")
    found = {
        one.printed.backbone: one.places[0].backbone
        for one in table.wanted
        if one.detector == "lid"
    }
    assert found == {"ResNet": "resnet18", "DenseNet": "densenet_bc_100_12"}


@pytest.mark.parametrize("name", ["ood", "corruption", "adversarial"])
def test_what_is_named_is_there(name):
    files = {g: group_files(g) for g in ("backbone", "dataset", "experiment", "challenge")}
    for one in read_table(name).wanted:
        for place in one.places:
            assert place.backbone in files["backbone"]
            assert place.in_dist in files["dataset"]
            assert set(place.experiments) <= set(files["experiment"])
            if len(one.places) > 1 and len({p.in_dist for p in one.places}) == 1:
                assert place.challenge in files["challenge"]


def test_tables_of_methods_that_are_not_built_are_holes():
    for one in read_table("gradcon_cifar10_sota").wanted:
        assert one.hole == f"method not built: {one.printed.method}"


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("title: Made up", "titel: Made up", "did you mean title"),
        ("layout: {panels", "# {panels", "the table has no layout"),
        ("rows: [in_dist", "rows: [in_dits", "did you mean in_dist"),
        ("columns: [method]", "columns: []", "puts several numbers in one cell"),
        ("panels: [metric], rows: [in_dist", "rows: [in_dist", "several numbers in one cell"),
        ("columns: [method]", "columns: [method, metric]", "metric must not be a column"),
        ("published: made", "published: nowhere", "no file of published numbers named 'nowhere'"),
        ("  auroc: {title: AUROC}\n", "", "metrics names no auroc"),
        ("{title: AUROC}", "{titel: AUROC}", "did you mean title"),
        ("side: in}", "sides: in}", "did you mean side"),
        ("    hole:", "    hold:", "did you mean hole"),
        ("when: {in_dist", "when: {in_dits", "did you mean in_dist"),
        ("Near: cifar100", "Close: cifar100", "no rule gives the challenge of Baseline on Near"),
        ("    experiment: ood_gtsrb\n", "", "no rule gives the experiment of Baseline on Far"),
        ("published: made", "where: {table: other}", "no published number in made.csv"),
        ("title: Made up", "title: [", "not valid YAML"),
        ("\n", " ", "not valid YAML"),
    ],
)
def test_a_file_that_says_what_it_cannot_is_refused(tmp_path, right, wrong, said):
    assert right in TABLE
    count = -1 if right == "\n" else 1
    dirs = [own_table(tmp_path, TABLE.replace(right, wrong, count))]
    with pytest.raises(GradbenchError, match=said) as fault:
        read_table("made", dirs)
    assert "made.yaml: " in str(fault.value)


def test_an_unknown_table_names_the_nearest():
    with pytest.raises(GradbenchError, match="did you mean corruption"):
        read_table("corruptions")
