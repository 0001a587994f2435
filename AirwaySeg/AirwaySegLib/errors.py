"""What reaches the user as a sentence instead of a trace."""


class AirwaySegError(Exception):
    """Something the user can mend; its text is one plain sentence that names the culprit.

    The command line prints the text and exits with code 2, the Slicer module shows it in a message.
    """


class Cancelled(AirwaySegError):
    """The user stopped the work; what was not finished was not written."""


def one_sentence(error: Exception) -> str:
    """What to tell the user of an error: our own sentence, or the kind and first line of anything else.

    What the system says of a file, such as that its name is too long, is the user's to mend too.
    """
    if isinstance(error, AirwaySegError):
        return str(error)
    if isinstance(error, MemoryError):
        return "the memory does not suffice; close other programs."
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename} cannot be used: {error.strerror}."
    first_line = next(iter(str(error).strip().splitlines()), "")
    return f"unexpected {type(error).__name__}: {first_line} (-v shows more)"
