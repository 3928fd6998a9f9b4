"""Settings of wrong types: every line is a valid configuration or one sentence, never a traceback.

Lines are drawn from every setting of the main configuration and of several members with values of
all kinds. Nothing is trained. Hydra composes once for each experiment; after that its own function
changes the composed configuration, as it does on the command line.
"""

import copy
import random

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser

from gradbench.cli.composing import hydra_faults, prepare_overrides
from gradbench.config import (
    CHOSEN,
    Settings,
    builtin_dir,
    check_settings,
    load_member,
    resolve_references,
)
from gradbench.errors import GradbenchError, printable
from gradbench.run.experiment import build_experiment
from gradbench.support.typed import setting_names

VALUES = (
    *("true", "1", "-1", "0", "1e3", "2.5", "null", "[]", "[[]]", "[[1]]", "{}", "{a: 1}", "x"),
    *("''", "nan", "inf", str(10**30), "-9" + "0" * 400, "'ü ∂ \u202e'", "[{use: 1}]", "[x,1]"),
    *("'\x1b[31m'", "'a\nb'", "${nope}", "'???'", "'=1+1'", "{1: {2: [null]}}", "[null]", "a/b"),
    *("'" + "n" * 300 + "'", "../../x", "'$a$'", "'\udcff'", "'\0'"),
)
BASES = {
    "digits": ("dataset=digits", "backbone=small_cnn"),
    "folder": ("dataset=folder", "backbone=torchvision_resnet18", "protocol=access2023"),
}
MEMBERS = {
    "challenges": ("fgsm", "cw", "gaussian_noise", "frost", "svhn", "gaussian_noise_images",
                   "cure_like_snow", "cure_tsr_snow", "folder"),
    "detectors": ("knn", "odin", "vim", "gradient", "gradient_synthetic", "gradient_oneclass_knn",
                  "lid", "energy", "react"),
}  # fmt: skip
LINES = 300


@pytest.fixture(scope="module")
def bases():
    with initialize_config_dir(str(builtin_dir()), version_base="1.3"):
        usual = ("challenges=[fgsm]", "detectors=[msp]")
        return {n: hydra_compose("config", overrides=[*w, *usual]) for n, w in BASES.items()}


def keys(cfg) -> list[str]:
    """Return every setting of a composed configuration, and what may stand in a list of members."""
    found = {*setting_names(Settings), "+backbone.extra", "+dataset.extra", "+new"}

    def walk(node, prefix):
        for key, value in node.items():
            found.add(f"{prefix}{key}")
            if hasattr(value, "items"):
                walk(value, f"{prefix}{key}.")

    walk(cfg, "")
    for plural, members in MEMBERS.items():
        for name in members:
            settings = {"use", "name", *load_member(plural[:-1], name)}
            found |= {f"{plural}=[{{use: {name}, {key}: VALUE}}]" for key in settings}
    return sorted(found)


def lines() -> list[tuple[str, str]]:
    """Return the name of a base and an override, so many of them, the same every time."""
    draw = random.Random(15)
    drawn = []
    with initialize_config_dir(str(builtin_dir()), version_base="1.3"):
        for base, words in BASES.items():
            every = keys(hydra_compose("config", overrides=list(words)))
            for key in draw.sample(every, min(len(every), LINES // len(BASES))):
                value = draw.choice(VALUES)
                line = key.replace("VALUE", value) if "VALUE" in key else f"{key}={value}"
                drawn.append((base, line))
    return drawn


def sentence(cfg, line: str) -> str | None:
    """Return with what a line is refused, None where it is a valid configuration."""
    try:
        prepare_overrides([line], [])
        with hydra_faults([line]):
            changed = copy.deepcopy(cfg)
            overrides = OverridesParser.create().parse_overrides([line])
            ConfigLoaderImpl._apply_overrides_to_config(overrides, changed)
        config = resolve_references(changed)
        check_settings(config)
        build_experiment(config)
    except GradbenchError as fault:
        return str(fault)
    return None


@pytest.mark.slow
def test_values_of_all_kinds_are_valid_or_one_sentence(bases):
    told = {line: sentence(bases[base], line) for base, line in lines()}
    assert len(told) > 0.9 * LINES
    for line, text in told.items():
        if text is not None:
            assert text.strip(), line
            assert "\n" not in printable(text), line
            assert "Error(" not in text, (line, text)
    refused = sum(text is not None for text in told.values())
    assert 0.5 * len(told) < refused < len(told)


@pytest.mark.parametrize("line", [
    "detectors=true", "challenges=1", "backbone=true", "experiment=[[]]", "data.root=0",
    "dataset.counts=1", "dataset.mean=1", "dataset.augment=5", "backbone.checkpoint=1e3",
    "detectors=[[1]]",
])  # fmt: skip
def test_the_key_and_what_was_given_stand_in_the_sentence(bases, line):
    text = sentence(bases["digits"], line)
    key, _, value = line.partition("=")
    given = {"1e3": "1000.0", "[[1]]": "[1]"}.get(value, value)
    last = key.rpartition(".")[2].removesuffix("s") if key in CHOSEN else key.rpartition(".")[2]
    assert last in text
    assert given in text
    assert "write" in text or "valid choices are" in text
