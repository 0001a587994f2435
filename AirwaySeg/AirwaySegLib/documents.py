"""Our JSON documents, which say in their field ``format`` what they are: reading them back."""

import json
from collections.abc import Callable
from typing import Any, TypeVar

from AirwaySegLib.errors import AirwaySegError

Built = TypeVar("Built")


def read_document(text: str, form: str, what: str, build: Callable[[dict[str, Any]], Built]) -> Built:
    """What ``build`` makes of a document of the format ``form``; ``what`` it is, such as "airway tree", for the user.

    Raises
    ------
    AirwaySegError
        If the text is something else. ``build`` may raise what parsing of unexpected values raises.
    """
    try:
        document = json.loads(text, parse_constant=_no_number)
        if document["format"] != form:
            raise AirwaySegError(f"This is {document['format']!r}, not {form!r}.")
        return build(document)
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise AirwaySegError(f"This is no {what}: {type(error).__name__} ({error}).") from error


def _no_number(name: str) -> None:
    """NaN and Infinity, which Python's reader takes for numbers and JSON does not know."""
    raise ValueError(f"{name} is no number")
