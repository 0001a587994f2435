"""Writes the table of packages in CONTRIBUTING.md from MAY_IMPORT: `python docs/make_package_table.py`."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "CONTRIBUTING.md"
START, END = "<!-- table of packages -->\n", "<!-- end of the table of packages -->\n"


def table() -> str:
    """A row for each folder of each package, and which files are its base."""
    sys.path[:0] = [str(ROOT / folder) for folder in ("Testing/support", "Testing/project")]
    from test_architecture import BASES, MAY_IMPORT

    lines = ["| package | folder | may import |", "| --- | --- | --- |"]
    for package, folders in MAY_IMPORT.items():
        for folder, allowed in folders.items():
            names = ["base"] if allowed & BASES[package] else []
            names += [f"`{name}`" for name in sorted(allowed - BASES[package])]
            lines.append(f"| {package} | `{folder}` | {', '.join(names) or 'nothing of the package'} |")
    bases = [f"{', '.join(f'`{name}`' for name in sorted(names))} of {package}" for package, names in BASES.items()]
    return (
        "\n".join([*lines, "", "Base means the files beside the folders:", *(f"{line};" for line in bases)])[:-1]
        + ".\n"
    )


def page() -> str:
    """CONTRIBUTING.md with the table as it should be."""
    text = PAGE.read_text("utf-8")
    head, rest = text.split(START)
    return f"{head}{START}\n{table()}\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8", newline="\n")
