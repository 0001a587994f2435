"""What both command lines understand: a parser whose paths can be used as such."""

import argparse
from pathlib import Path
from typing import Any


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser`, also for its subcommands, that refuses what is no path where ``type=Path`` is wanted."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register("type", Path, path_of)


def path_of(text: str) -> Path:
    """The path that was typed.

    An empty one, such as an unset variable in a script, would stand for the folder in which the user happens to be.
    """
    if not text or "\0" in text:
        raise argparse.ArgumentTypeError(f"{text!r} is no path")
    return Path(text)
