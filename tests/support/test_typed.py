"""Values checked by a type, and the sentence that says what is due."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, get_type_hints

import pytest
from msgspec import Meta

from gradbench.config import (
    ProcessingStep,
    Settings,
    check_settings,
    group_files,
    load_member,
)
from gradbench.errors import GradbenchError
from gradbench.methods.base import Detector
from gradbench.support.instantiate import _declared, import_target, instantiate, parameters_of
from gradbench.support.text import format_value
from gradbench.support.typed import check_type, describe_type, is_plain_type, setting_names

From1 = Annotated[int, Meta(ge=1)]


@pytest.mark.parametrize(
    ("value", "due", "text"),
    [
        (0, From1, "a.b=0: write a whole number, at least 1"),
        (True, From1, "a.b=true: write a whole number, at least 1"),
        (None, float, "a.b=null: write a number"),
        (float("nan"), float, "a.b=nan: write a finite number"),
        ([1, float("inf")], list[float], "a.b[1]=inf: write a finite number"),
        (10**30, int, f"a.b={10**30}: write a number of at most 9007199254740992"),
        (5, str, "a.b=5: write text; what reads like a number, a switch or a list needs two"),
        ("x", Literal["on", "off"] | None, "a.b=x: write on, off or null"),
        ([1, "x"], Sequence[int], "a.b[1]=x: write a whole number"),
        ("onn", Literal["on", "off"], "a.b=onn: did you mean on? write on or off"),
        ("maybe", bool | None, "a.b=maybe: write true, false or null"),
        ({"k": [1, "x"]}, Mapping[str, Sequence[int]], "a.b.k[1]=x: write a whole number"),
        ({1: 2}, dict[str, int], "a.b: 1 stands where a name must"),
        ([1], tuple[int, int], "a.b=[1]: write a list of 2 whole numbers"),
        ({"shap": 1}, ProcessingStep, "no setting named 'a.b.shap': did you mean a.b.shape"),
        ("x" * 80, int, f"a.b={'x' * 60}…: write a whole number"),
        ("two\nlines", int, r"a.b=two\nlines: write a whole number"),
        ("\udcff", Literal["on"], r"a.b: \udcff is no text"),
    ],
)
def test_what_is_due_stands_beside_what_was_given(value, due, text):
    with pytest.raises(GradbenchError) as fault:
        check_type(value, due, "a.b")
    assert str(fault.value).startswith(text)
    assert "\n" not in str(fault.value)


@pytest.mark.parametrize(
    ("value", "due"),
    [(3, float), ("8/255", float | str), ([1, 2.5], Sequence[float]), (None, int | None),
     ({"a": {"b": [1]}}, dict[str, Any]), ([3, 4], tuple[int, int])],
)  # fmt: skip
def test_what_fits_passes(value, due):
    check_type(value, due)


def test_wording_of_alternatives():
    due = str | dict[str, Any] | list[str] | None
    assert describe_type(due) == "text, a mapping {NAME: value}, a list of texts or null"
    assert format_value([None, True]) == "[None, True]"


def test_types_that_files_cannot_hold_are_left_alone():
    assert is_plain_type(Sequence[float] | None)
    assert not is_plain_type(Detector)
    assert not is_plain_type(Sequence[Detector])
    assert not is_plain_type(list[int] | tuple[int, ...])
    assert not is_plain_type(Literal[True])


def test_the_description_and_the_main_configuration_have_the_same_settings():
    from omegaconf import OmegaConf

    from gradbench.config import builtin_dir

    main = OmegaConf.to_container(OmegaConf.load(builtin_dir() / "config.yaml"))
    named = {k for k in main if k not in ("defaults", "hydra")}
    assert named | {"backbone", "dataset", "protocol", "task"} == set(get_type_hints(Settings))
    for section in [k for k in named if isinstance(main[k], dict)]:
        inside = {n for n in setting_names(Settings) if n.startswith(f"{section}.")}
        assert inside == {f"{section}.{key}" for key in main[section]}


def test_a_configuration_of_other_code_is_checked_as_a_whole():
    with pytest.raises(GradbenchError, match="no setting named 'trainng': did you mean training"):
        check_settings({"name": "x", "trainng": {}})


@pytest.mark.parametrize("group", ["challenge", "detector", "protocol", "dataset"])
def test_every_setting_of_a_built_in_member_has_a_type_that_is_checked(group):
    for name in group_files(group):
        content = load_member(group, name)
        if "members" in content:
            continue
        make = import_target(name, content["_target_"])
        declared = _declared(make)
        for setting in parameters_of(make)[0]:
            assert is_plain_type(declared[setting]), (name, setting)


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("os.getcwd", "builds no detector: name a class derived from gradbench.methods.base"),
        ("torch.nn.Linear", "_target_=torch.nn.Linear builds no detector"),
        ("gradbench.methods", "_target_=gradbench.methods builds no detector"),
        ("gradbench.nowhere.D", "cannot be imported (No module named 'gradbench.nowhere')"),
        (5, "detector mine: _target_=5: write package.module.Name"),
        (["a"], "write package.module.Name"),
    ],
)
def test_a_target_that_is_no_detector(target, text):
    with pytest.raises(GradbenchError) as fault:
        instantiate("detector", "mine", {"_target_": target}, base=Detector)
    assert text in str(fault.value)
