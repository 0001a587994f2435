"""Tests of AirwaySegLib.files.json_documents: what is read back, and what each wrong text is told."""

import json

import pytest

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.files.json_documents import indented, read_document


def read(text: str) -> list[int]:
    return read_document(text, "things 1", "list of things", lambda document: [int(n) for n in document["things"]])


def test_what_was_written_is_read():
    assert read(json.dumps({"format": "things 1", "things": [3, 4]})) == [3, 4]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "not a valid list of things: JSONDecodeError"),
        ("[]", "not a valid list of things: TypeError"),
        ('{"things": []}', "not a valid list of things: KeyError"),
        ('{"format": "things 2", "things": []}', "'things 2', not 'things 1'"),
        ('{"format": "things 1", "things": [NaN]}', "NaN is not a number"),
        ('{"format": "things 1", "things": ["x"]}', "not a valid list of things: ValueError"),
        ('{"format": "things 1", "things": ' + "[" * 60 + "]" * 60 + "}", "nested too deeply"),
        ("[" * 100_000, "not a valid list of things: ValueError .it is nested too deeply"),
    ],
)
def test_anything_else_is_refused_in_a_sentence(text, told):
    with pytest.raises(AirwaySegError, match=told):
        read(text)


def test_the_indented_text_is_that_of_the_standard_library():
    document = {
        "text": 'a "b", [c], \u00e9',
        "empty": [{}, [], ""],
        "numbers": [1, 2.5, -1e-7, 1e22, float("inf")],
        "mixed": [1, True, None, "1, 2"],
        "points": [[0.1, 0.2, 0.3], (4, 5, 6)],
        "inner": {"a": {"b": [[[1]]]}},
    }
    assert indented(document) == json.dumps(document, indent=1)
