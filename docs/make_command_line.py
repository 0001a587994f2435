"""Writes docs/command-line.md from the parsers of both commands: `python docs/make_command_line.py`."""

import argparse
from collections.abc import Iterator
from pathlib import Path

from AirwaySegLib import __main__ as airwayseg
from AirwaySegTraining import __main__ as airwayseg_train

PAGE = Path(__file__).with_name("command-line.md")
HEAD = """# Command line reference

Written by `python docs/make_command_line.py` from the commands themselves; do not edit it by hand. How to use the
commands: [Segment, measure, repair, evaluate](usage.md) and [Training](training.md).

Exit codes: 0 success, 2 failure (one sentence on standard error says what was wrong), 130 stopped by the user.
"""


def parsers() -> list[argparse.ArgumentParser]:
    """The parsers of `airwayseg` and `airwayseg-train`."""
    return [airwayseg._parser(), airwayseg_train._parser()]


def subcommands(parser: argparse.ArgumentParser) -> dict[str, tuple[argparse.ArgumentParser, str]]:
    """Each subcommand's parser and one line of help, by its name."""
    found = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            found |= {name: (child, helps.get(name, "")) for name, child in action.choices.items()}
    return found


def commands(parser: argparse.ArgumentParser, help_text: str = "") -> Iterator[tuple[argparse.ArgumentParser, str]]:
    """A parser and all parsers below it, each with its help."""
    yield parser, help_text or parser.description or ""
    for child, child_help in subcommands(parser).values():
        yield from commands(child, child_help)


def arguments(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """What a command takes, without `--help` and the names of its subcommands."""
    left_out = (argparse._HelpAction, argparse._SubParsersAction)
    return [action for action in parser._actions if not isinstance(action, left_out)]


def name_of(action: argparse.Action) -> str:
    """Names of an argument with its value or its choices."""
    value = action.metavar or "{" + ",".join(map(str, action.choices)) + "}" if action.choices else action.metavar
    value = value or action.dest.upper()
    if not action.option_strings:
        return f"`{value}`" + (" ..." if action.nargs == "+" else "")
    names = ", ".join(f"`{name}`" for name in action.option_strings)
    return names if action.nargs == 0 else f"{names} `{value}`" + (" ..." if action.nargs == "+" else "")


def section(parser: argparse.ArgumentParser, help_text: str) -> str:
    """Heading, help and a table of the arguments of one command."""
    words = parser.prog.split()
    lines = [f"{'#' * (len(words) + 1)} {parser.prog}", "", f"{help_text[:1].upper()}{help_text[1:].rstrip('.')}.", ""]
    actions = arguments(parser)
    if actions:
        lines += ["| argument | what |", "| --- | --- |"]
        lines += [f"| {name_of(action)} | {meaning(parser, action)} |" for action in actions]
        lines.append("")
    return "\n".join(lines)


def meaning(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    """The help of an argument, with what is filled in, and whether it must be given."""
    text = parser._get_formatter()._expand_help(action) if action.help else ""
    required = ["required"] if action.required and action.option_strings else []
    return "; ".join([*required, " ".join(text.split())]).rstrip("; ").replace("|", "\\|")


def page() -> str:
    """The whole page."""
    sections = [section(command, text) for parser in parsers() for command, text in commands(parser)]
    return "\n".join([HEAD, *sections])


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8", newline="\n")
