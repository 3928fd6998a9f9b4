"""The rule for names, names of files, and cells that spreadsheets do not take for formulas."""

import pytest

from gradbench.errors import GradbenchError
from gradbench.support.text import check_name, file_name, for_spreadsheet, from_spreadsheet, to_name


@pytest.mark.parametrize("name", ["msp", "fgsm-0.1", "Größe_2", "a+b", "日本", "0", "n" * 100])
def test_names(name):
    assert check_name("name", name) == name
    assert to_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "$a$", "a^b", "a@b", "a b", ".a", "_a", "-a", "a/b", "../../x", "a\nb", "\x1b[31m", "\0",
     "\udcff", "n" * 101, "日" * 34, "a\u202e", None, 5, ["a"],
     "NA", "nan", "null"],
)  # fmt: skip
def test_what_is_no_name_is_one_sentence(name):
    with pytest.raises(GradbenchError, match=r"name=.*: a name begins with a letter or digit") as e:
        check_name("name", name)
    assert "\n" not in str(e.value)
    assert str(e.value).isprintable()
    if isinstance(name, str):
        check_name("name", to_name(name))


def test_names_of_files_are_short_and_differ():
    long = [file_name("n" * 300 + end) for end in "ab"]
    assert long[0] != long[1]
    assert all(len(name.encode()) <= 220 for name in (*long, file_name("日" * 200)))
    assert file_name("../a\0b") == ".._a_b"


@pytest.mark.parametrize("text", ["=1+1", "+x", "-x", "@x", "\t=1", "'=1", "''@x", "\r", "-5 %"])
def test_formulas_are_texts_and_come_back(text):
    assert for_spreadsheet(text) == f"'{text}"
    assert from_spreadsheet(for_spreadsheet(text)) == text


@pytest.mark.parametrize("text", ["", "a=b", "-0.5", "+3", "1e-3", "-inf", "'quoted'", "'", "ü"])
def test_numbers_and_other_texts_stay_as_they_are(text):
    assert for_spreadsheet(text) == text
    assert from_spreadsheet(text) == text
