"""The tables of results/FINDINGS.md come from rows, and its sentences from the tables."""

import importlib.util
from pathlib import Path

import pytest
import yaml

from gradbench.run.rows import frame, row, write_csv

ROOT = Path(__file__).resolve().parents[1]
FACTS = """
appendices:
  one:
    title: One
    tables:
      - {detectors: far}
      - {pairs: far}
      - {transfer: across}
      - {unseen: across}
      - {unrelated: own}
  two: {title: Two, tables: [{roundtrips: trips}, {costs: far}, {overview: both}]}
  three: {title: Three, tables: [{benchmark: listed}, {choice: all}]}
kinds: {detectors: mean AUROC}
overviews: {both: {far: far, own: own}}
pairs: [[gradient_fused, knn], [gradient_fused, vim]]
hypotheses: []
"""
CHOICE = """\
experiment,outliers,near,parts,rectified,mirrored,auroc
a,mixup,True,energy,,False,70.0
a,halves,True,energy,,False,80.0
a,phases,False,energy,,False,95.0
a,mixup,True,energy + knn,x,True,76.0
a,halves,True,energy + knn,x,True,80.0
a,phases,False,energy + knn,x,True,97.0
"""
COSTS = """\
# Costs

| detector | forward | backward | with passes, images/s | peak memory, MiB |
| --- | ---: | ---: | ---: | ---: |
| odin | 2 | 1 | 300 | 90.0 |
| lid | 1 | 0 |  | 9.0 |
| msp | 1 | 0 | 1,200 | 3.2 |
"""


@pytest.fixture(scope="module")
def module():
    spec = importlib.util.spec_from_file_location("findings", ROOT / "scripts" / "findings.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def main(module):
    return lambda root, check: module.main(root, check, root / "facts.yaml")


def test_the_catalogue_of_networks_is_that_of_the_files(module):
    facts = yaml.safe_load((ROOT / "scripts" / "findings.yaml").read_text(encoding="utf-8"))
    one = facts["appendices"]["networks"]
    due = module.appendix(module.Tables(ROOT, facts), one["title"], one["tables"], one["says"])
    assert (ROOT / "results" / "appendix" / "networks.md").read_text(encoding="utf-8") == due
    assert "| `resnet20` | `cifar10` | 91.73 | 91.73 |  | `gradbench run backbone=resnet20 " in due
    assert "12fca82f0bebc4135bf1f32f6e3710e61d5108578464b84fd6d7f5c1b04036c8" in due


def auroc(challenge, method, value, seed=0, fold="all", **more):
    given = {
        "challenge_set": "ood",
        "metric": "auroc",
        "role": "main",
        "lo": value - 1,
        "hi": value + 1,
        **more,
    }
    return row(challenge=challenge, method=method, value=value, train_seed=seed, fold=fold, **given)


@pytest.fixture
def root(tmp_path):
    far = [auroc("mean:ood", "gradient_fused", v, seed) for seed, v in enumerate((96.04, 94.16))]
    far += [auroc("mean:ood", "knn", v, seed) for seed, v in enumerate((92.0, 97.0))]
    far += [auroc("mean:ood", m, v, None, "networks") for m, v in
            (("gradient_fused", 95.1), ("knn", 94.5))]  # fmt: skip
    far += [auroc("mean:ood", "gradient_fused", 0.6, None, metric="auroc_gap",
                  compared_with="knn", p=0.0123, p_holm=0.0246)]  # fmt: skip
    across = [auroc(c, f"gradient@{s}", v, role="transfer") for s, c, v in
              (("svhn", "svhn", 99.0), ("svhn", "fgsm", 61.0), ("svhn", "fog", 70.2))]  # fmt: skip
    across += [auroc(c, f"gradient@{s}", v, role="transfer") for s, c, v in
               (("fgsm", "fgsm", 91.0), ("fgsm", "svhn", 80.0), ("fgsm", "fog", 60.0),
                ("fog", "fog", 80.2), ("fog", "svhn", 70.0), ("fog", "fgsm", 50.0))]  # fmt: skip
    across += [auroc(c, "msp", v) for c, v in (("svhn", 70.0), ("fgsm", 66.0), ("mean:ood", 68.0))]
    relative = "constants: cifar; gradient_synthetic: fitted on a relative: gaussian_noise 3"
    own = [auroc("fog", "gradient_synthetic", 60.0), auroc("snow", "gradient_synthetic", 64.0),
           auroc("shot_noise", "gradient_synthetic", 99.0, note=relative),
           auroc("fog", "msp", 61.0), auroc("snow", "msp", 62.0), auroc("shot_noise", "msp", 50.0),
           auroc("mean:ood", "msp", 57.0)]  # fmt: skip
    trips = [auroc(c, m, v, supervision=s) for c, m, v, s in
             (("svhn", "gradient_fused", 96.0, "none"), ("svhn", "knn", 95.0, "none"),
              ("svhn", "gradient", 99.0, "training"), ("svhn", "lid", 99.5, "training"))
             ]  # fmt: skip
    trips += [auroc("round_trip:svhn", m, v, supervision=s, role="round_trip") for m, v, s in
              (("gradient_fused", 60.5, "none"), ("knn", 50.0, "none"),
               ("gradient", 95.0, "training"), ("lid", 90.0, "training"))]  # fmt: skip
    listed = [auroc(f"mean:{kind}", m, v + i, i)
              for kind, m, v in (("near", "msp", 80.0), ("far", "msp", 90.0), ("near", "knn", 84.0))
              for i in (0, 1)]  # fmt: skip
    for kind, m, v in (("near", "msp", 80.5), ("far", "msp", 90.5), ("near", "knn", 84.5)):
        listed += [auroc(f"mean:{kind}", m, value, None, "networks", metric=metric)
                   for metric, value in (("auroc", v), ("auroc_deviation", 0.5))]  # fmt: skip
    listed += [auroc("cifar100", "msp", v, i) for i, v in enumerate((79.0, 80.0))]
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "choice.csv").write_text(CHOICE)
    for name, rows in (
        ("far", far),
        ("listed", listed),
        ("across", across),
        ("own", own),
        ("trips", trips),
    ):
        (tmp_path / "results" / name).mkdir(parents=True)
        write_csv(frame(rows), tmp_path / "results" / name / "results.csv")
    (tmp_path / "results" / "far" / "costs.md").write_text(COSTS)
    (tmp_path / "facts.yaml").write_text(FACTS)
    (tmp_path / "results" / "FINDINGS.md").write_text("Fused reaches 95.1 in 40 cells.\n")
    return tmp_path


def test_appendices_are_written_and_agree_afterwards(main, root):
    assert main(root, check=True) == 1  # there are none
    assert main(root, check=False) == 0
    text = (root / "results" / "appendix" / "one.md").read_text()
    assert "| `gradient_fused` | 95.1 | 94.1 to 96.1 | 96.0 | 94.2 |" in text
    assert text.index("`gradient_fused` | 95.1") < text.index("`knn` | 94.5")
    assert "| `gradient_fused` minus `knn` | +0.6 | -0.4 to +1.6 | p = 0.025 |" in text
    assert "| `gradient@svhn` | 99.0 | 65.6 | 85.6 | 20.0 | 61.0 (fgsm) |" in text
    assert "| `msp` |  | 68.0 |  |  |\n| `gradient` | 90.1 | 65.2 | 24.9 | 24.9 to 24.9 |" in text
    assert "| `gradient_synthetic` | 62.0 | 62.0 |\n| `msp` | 61.5 | 61.5 |" in text
    text = (root / "results" / "appendix" / "two.md").read_text()
    assert "| `gradient_fused` | **95.1** |  |" in text
    assert "| `msp` |  | **57.0** |" in text
    assert "| svhn | no | `gradient_fused` | 96.0 | 60.5 | 35.5 |" in text
    assert "yes" not in text  # there lid is first, which does not read gradients
    assert "| `msp` | 1 | 0 | 1,200 | 1.0 | 3.2 |\n| `odin` | 2 | 1 | 300 | 4.0 | 90.0 |" in text
    text = (root / "results" / "appendix" / "three.md").read_text()
    assert "| `knn` | 84.5 ± 0.5 |  |  |  |  | 84.0 | 85.0 |" in text
    assert "| `msp` | 80.5 ± 0.5 | 90.5 ± 0.5 | 79.5 | 90.0 | 91.0 | 80.0 | 81.0 |" in text
    assert "| energy + knn | x | yes | 87.5 | 78.0 | 97.0 | 97.0 | 78.0 |" in text
    assert text.index("| energy + knn |") < text.index("| energy |")
    assert main(root, check=True) == 0


@pytest.mark.parametrize(
    ("file", "old", "new", "says"),
    [("appendix/one.md", "| 95.1 |", "| 95.2 |", "not what the rows give"),
     ("FINDINGS.md", "reaches 95.1", "reaches 98.7", "98.7 stands in no")],
)  # fmt: skip
def test_a_wrong_number_is_found(main, root, capsys, file, old, new, says):
    main(root, check=False)
    path = root / "results" / file
    path.write_text(path.read_text().replace(old, new))
    assert main(root, check=True) == 1
    assert says in capsys.readouterr().err
