"""JSON files of strangers: read whole, or refused in words that follow the name of the file."""

import json
import os

import msgspec
import pytest

from gradbench.errors import printable
from gradbench.support.files import Damaged, read_json


class Inner(msgspec.Struct):
    size: int


class Outer(msgspec.Struct):
    name: str
    parts: list[Inner] = []

    def __post_init__(self):
        if self.name == "odd":
            raise ValueError("name must be even")


@pytest.fixture
def refused(tmp_path):
    def refused(content):
        path = tmp_path / "a.json"
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        with pytest.raises(Damaged) as told:
            read_json(path, Outer, largest=100_000)
        assert "\n" not in str(told.value)
        return told.value

    return refused


def test_what_fits_is_returned_with_all_that_the_schema_does_not_name(tmp_path):
    content = {"name": "é\udce9", "parts": [{"size": 1}], "more": [None, {"deep": 1e300}]}
    (tmp_path / "a.json").write_text(json.dumps(content))
    assert read_json(tmp_path / "a.json", Outer) == content


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([], "it must be mapping, not list"),
        (None, "it must be mapping, not null"),
        ({"name": 3}, "name must be str, not int"),
        ({"name": "odd"}, "name must be even"),
        ({"name": "a", "parts": [{"size": 1}, {"size": "1"}]}, "parts.1.size must be int, not str"),
        ({"name": "\ud800"}, "holds half a sign"),
        ({"name": "a", "more": {"\ud800": 1}}, "holds half a sign"),
        (b"", "Expecting value"),
        (b"{", "Expecting property name"),
        (b"\xff\xfe{", "can't decode byte 0xff"),
        (b'{"name": "a", "name": "b"}', "it names 'name' twice"),
        (b'{"name": "a", "more": ' + b"9" * 5000 + b"}", "Exceeds the limit"),
        (b'{"name": "a", "more": ' + b"[" * 60 + b"]" * 60 + b"}", "nested more than 50 deep"),
        (b"[" * 90_000, "nested more than 50 deep"),
        (b'{"name": "' + b"a" * 100_000 + b'"}', "it is larger than 0 MiB"),
    ],
)
def test_what_does_not_fit_is_told(refused, content, said):
    assert said in str(refused(content))


def test_a_missing_field_is_named(refused):
    assert refused({"parts": []}).missing == "name"
    assert refused({"name": "a", "parts": [{}]}).missing == "parts.0.size"


def test_what_is_no_plain_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    told = {"pipe": "it is no plain file", "none": "No such file", "n" * 300: "too long",
            ".": "it is no plain file", "a\0": "null byte"}  # fmt: skip
    for name, said in told.items():
        with pytest.raises(Damaged, match=said):
            read_json(tmp_path / name, Outer)


def test_text_is_printed_without_what_steers_a_terminal():
    assert printable("a\x1b[31m\n\0\u202e\ud800 é ≈") == r"a\x1b[31m\n\x00\u202e\ud800 é ≈"
    assert printable(printable("\x1b")) == printable("\x1b")
