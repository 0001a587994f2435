"""The two exceptions that reach the user as a sentence instead of a trace."""


class AirwaySegError(Exception):
    """Something the user can mend; its text is one plain sentence that names the culprit.

    The command line prints the text and exits with code 2, the Slicer module shows it in a message.
    """


class Cancelled(AirwaySegError):
    """The user stopped the work; nothing was written."""
