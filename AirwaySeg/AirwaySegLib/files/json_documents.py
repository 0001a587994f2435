"""Our JSON documents, which say in their field ``format`` what they are: reading them back."""

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from AirwaySegLib.errors import AirwaySegError

Built = TypeVar("Built")

DEEPEST = 50
"""Our own documents have 6 levels."""


def read_document(text: str, form: str, what: str, build: Callable[[dict[str, Any]], Built]) -> Built:
    """What ``build`` makes of a document of the format ``form``; ``what`` it is, such as "airway tree", for the user.

    Raises
    ------
    AirwaySegError
        If the text is something else. ``build`` may raise what parsing of unexpected values raises.
    """
    try:
        document = parse_json(text)
        if document["format"] != form:
            raise AirwaySegError(f"This is {document['format']!r}, not {form!r}.")
        return build(document)
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise AirwaySegError(f"This is not a valid {what}: {type(error).__name__} ({error}).") from error


def indented(document: Any, before: str = "\n") -> str:
    """The same text as ``json.dumps(document, indent=1)``, which takes ten times as long for long lists of numbers.

    ``before`` begins the lines of this level. Keys are texts.
    """
    inner = before + " "
    if isinstance(document, dict) and document:
        lines = (f"{inner}{json.dumps(key)}: {indented(value, inner)}" for key, value in document.items())
        return "{" + ",".join(lines) + before + "}"
    if isinstance(document, list | tuple) and document:
        if all(type(value) in (float, int) for value in document):
            return "[" + inner + json.dumps(document)[1:-1].replace(", ", "," + inner) + before + "]"
        return "[" + ",".join(inner + indented(value, inner) for value in document) + before + "]"
    return json.dumps(document)


def triple(values: Sequence[float]) -> tuple[float, float, float]:
    """Three numbers of a document, such as a point in mm; ValueError for fewer or more."""
    first, second, third = (float(value) for value in values)
    return first, second, third


def parse_json(text: str | bytes) -> Any:
    """Parse JSON of a user; ValueError for NaN and infinity, and for more than `DEEPEST` nested levels.

    What is nested deeper would be read by some functions and end others with a RecursionError.
    """
    try:
        document = json.loads(text, parse_constant=_no_number)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    level = [document]
    for _ in range(DEEPEST):
        level = [inner for value in level for inner in _inside(value)]
    if level:
        raise ValueError("it is nested too deeply")
    return document


def _inside(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []


def _no_number(name: str) -> None:
    """Refuse NaN and Infinity, which Python's reader accepts and JSON does not."""
    raise ValueError(f"{name} is not a number")
