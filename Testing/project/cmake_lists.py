"""Writes the lists of packaged files into the CMakeLists.txt files: run it after a file was added, moved or removed."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LISTS = (
    ("AirwaySeg", "MODULE_PYTHON_SCRIPTS", "AirwaySeg", ("*.py", "*/**/*.py")),
    ("AirwaySeg", "MODULE_PYTHON_RESOURCES", "AirwaySeg", ("Resources/**/*.*",)),
    ("AirwaySeg", "MODULE_MODELS", "Resources/Models", ("*.safetensors", "*.md")),
    ("Training", "TRAINING_PYTHON_SCRIPTS", "Training", ("**/*.py",)),
    ("Training", "TRAINING_CONFIGS", "Training", ("Configs/*.toml", "Configs/*.npz")),
)
"""Folder of the CMakeLists.txt, name of the list, folder of the files, and their patterns."""


def files_of(folder: str, patterns: tuple[str, ...]) -> list[str]:
    """Files below the folder, relative to it, as CMake writes them."""
    found = {
        path.relative_to(ROOT / folder).as_posix() for pattern in patterns for path in (ROOT / folder).glob(pattern)
    }
    return sorted(found)


def with_lists(cmake_folder: str) -> str:
    """The text of a CMakeLists.txt with lists that name exactly the files of the tree."""
    text = (ROOT / cmake_folder / "CMakeLists.txt").read_text("utf-8")
    for where, name, folder, patterns in LISTS:
        if where == cmake_folder:
            entries = "".join(f"  {entry}\n" for entry in files_of(folder, patterns))
            text, count = re.subn(
                rf"set\({name}\n.*?\n  \)", f"set({name}\n{entries}  )", text, count=1, flags=re.DOTALL
            )
            if not count:
                raise ValueError(f"{cmake_folder}/CMakeLists.txt sets no {name}")
    return text


if __name__ == "__main__":
    for cmake_folder in sorted({row[0] for row in LISTS}):
        (ROOT / cmake_folder / "CMakeLists.txt").write_text(with_lists(cmake_folder), "utf-8", newline="\n")
