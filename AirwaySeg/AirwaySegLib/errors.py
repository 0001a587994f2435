"""Errors that the user sees as one sentence instead of a traceback."""


class AirwaySegError(Exception):
    """An error that the user can fix; its text is one plain sentence that names the culprit.

    The command line prints the text and exits with code 2, the Slicer module shows it in a message.
    """


class Cancelled(AirwaySegError):
    """The user cancelled the work; unfinished results were not written."""


def one_sentence(error: Exception) -> str:
    """The sentence that the user sees: our own, or the type and first line of any other error.

    An `OSError` about a file, such as a name that is too long, is shown in the system's words: the user can fix it.
    """
    if isinstance(error, AirwaySegError):
        return str(error)
    if isinstance(error, MemoryError):
        return "out of memory; close other programs."
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename} cannot be used: {error.strerror}."
    first_line = next(iter(str(error).strip().splitlines()), "")
    return f"unexpected {type(error).__name__}: {first_line} (-v shows more)"
