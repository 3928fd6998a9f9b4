import pytest

from gradbench.errors import GradbenchError, unknown


def test_near_names_come_first():
    text = str(unknown("detector", "gradiant", ["msp", "gradient", "energy"]))
    assert text == (
        "no detector named 'gradiant': did you mean gradient? "
        "valid choices are energy, gradient, msp"
    )


def test_without_a_near_name_only_the_choices_are_told():
    text = str(unknown("detector", "xyz", iter(["msp", "energy"])))
    assert text == "no detector named 'xyz': valid choices are energy, msp"


def test_the_wrong_name_itself_is_not_proposed():
    text = str(unknown("setting", "width", ["level", "width", "widths"]))
    assert text == "no setting named 'width': did you mean widths? valid choices are level, widths"


def test_it_is_an_exception_of_its_own():
    with pytest.raises(GradbenchError):
        raise unknown("dataset", "mnits", ["mnist"])
    assert not issubclass(GradbenchError, OSError | ValueError)
