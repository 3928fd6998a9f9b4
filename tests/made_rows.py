"""Hand-made rows of a run, for the tests of this room."""

from gradbench.run.rows import frame, hole, row

DETECTORS = ("msp", "gradient")
ABOUT = {
    "experiment": "quickstart",
    "in_dist": "digits",
    "backbone": "small_cnn",
    "width": 16,
    "accuracy": {0: 0.97223},
    "n_clean": 360,
    "protocol": "grouped",
    "detectors": {
        "msp": {"supervision": "none", "clean_seen": "none", "reads": ["logits"]},
        "gradient": {
            "supervision": "training",
            "clean_seen": "other test images",
            "reads": ["squared_norms/ones/bce"],
        },
    },
    "remark": "360 normal images: this shows the machinery and is no finding.",
    "command": "gradbench run experiment=quickstart",
}
OTHERS = (
    ("aupr", "in", ""),
    ("aupr", "out", ""),
    ("aupr_balanced", "in", ""),
    ("aupr_balanced", "out", ""),
    ("detection_accuracy", "", "best"),
    ("detection_accuracy", "", "choose"),
    ("detection_accuracy", "", "half"),
    ("fpr95", "normal", ""),
    ("fpr95", "abnormal", ""),
)


def common(seed=0, **more):
    return {
        "experiment": "quickstart",
        "backbone": "small_cnn",
        "width": 16,
        "in_dist": "digits",
        "train_seed": seed,
        **more,
    }


def auroc(challenge_set, challenge, method, value, lo=None, hi=None, *, seed=0, **more):
    """Return the AUROC of one detector on one challenge as a row."""
    given = {
        "source": "official",
        "protocol": "grouped",
        "fold": "all",
        "metric": "auroc",
        "lo": value - 1 if lo is None else lo,
        "hi": value + 1 if hi is None else hi,
        "n_normal": 360,
        "n_abnormal": 1000,
        "unit": "percent",
    } | more
    names = {"challenge_set": challenge_set, "challenge": challenge, "method": method}
    role = role_of(challenge_set, challenge, method, given["protocol"])
    given = {"role": role} | given
    return row(**common(seed, value=value, **names), **given)


def role_of(challenge_set, challenge, method, protocol):
    """Return what a made row is there for."""
    if challenge_set == "control":
        return challenge.partition(":")[0]
    return "random_split" if protocol == "random" else "transfer" if "@" in method else "main"


def everything(challenge_set, challenge, method, value, *args, **more):
    """Return the rows of all metrics: AUROC as given, the others each a bit lower."""
    first = auroc(challenge_set, challenge, method, value, *args, **more)
    rows = [first]
    for place, (metric, side, rule) in enumerate(OTHERS, 1):
        other = {"metric": metric, "side": side, "threshold_rule": rule, "note": ""}
        rows.append(first | other | {"value": value - place * 0.3, "lo": None, "hi": None})
    rows.append(first | {"fold": "0", "value": 11.1, "lo": None, "hi": None})
    return rows


def missing(challenge_set, challenge, reason, seed=0):
    role = role_of(challenge_set, challenge, "", "")
    names = {"role": role, "challenge_set": challenge_set, "challenge": challenge}
    return hole(reason, **common(seed, **names))


def whole_run():
    """Return the rows of a run with every kind of challenge and control in it."""
    exact = "exact one-sided lower bound from 200 disjoint pairs"
    rows = [
        *everything("ood", "patches", "msp", 91.234, 90.0, 92.5, note="resized from 64x64"),
        *everything("ood", "patches", "gradient", 100.0, 98.7, 100.0, note=f"resized; {exact}"),
        missing("ood", "svhn", "svhn/test.npz is not under data.root"),
        auroc("control", "identity", "msp", 50.0, 50.0, 50.0),
        auroc("control", "identity", "gradient", 50.0, 50.0, 50.0),
        auroc("control", "random_labels", "gradient", 50.3, p=0.43, p_holm=0.86),
        auroc("control", "round_trip:patches", "msp", 49.8),
        auroc("control", "round_trip:patches", "gradient", 55.1),
        missing("control", "round_trip:svhn", "not needed: native shape"),
        auroc("adversarial", "fgsm", "gradient", 98.5, protocol="random", source="generated"),
    ]
    for level, value in ((1, 62.0), (3, 71.5), (5, 80.0)):
        more = {"level": level, "source": "generated"}
        rows += everything("corruption", "gaussian_noise", "msp", value, **more)
        rows += everything("corruption", "gaussian_noise", "gradient", value + 15.04, **more)
    for method, value in (("msp", 88.8), ("gradient", 97.9)):
        rows += everything("adversarial", "fgsm", method, value, source="generated")
    for metric, value, unit in (("attack_success", 83.31, "percent"), ("l2", 0.8126, "pixels")):
        named = {"challenge_set": "adversarial", "challenge": "fgsm", "method": "f"}
        numbers = {"role": "attack", "fold": "all", "metric": metric, "value": value, "unit": unit}
        rows.append(row(**common(**named, **numbers)))
    return rows


def run_frame():
    return frame(whole_run())
