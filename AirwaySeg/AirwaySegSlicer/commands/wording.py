"""The output of a command with the names of nodes instead of those of temporary files."""

import re
from collections.abc import Callable

import slicer


def with_node_names(names: dict[str, str]) -> Callable[[str], str]:
    """A function that replaces each temporary ``file`` in a line by ``names[file]``.

    At the beginning of a line the file's name may stand without its extension.
    """
    if not names:
        return str
    folder = rf"(?:{re.escape(slicer.app.temporaryPath)}[\\/]AirwaySeg-[^\\/]+[\\/])?"
    files = re.compile(rf"{folder}(?<![\w.-])({'|'.join(map(re.escape, names))})")
    stems = {file.partition(".")[0]: name for file, name in names.items()}
    begins = re.compile(rf"^(airwayseg(?:-train)?: )?({'|'.join(map(re.escape, stems))})(?=: )")

    def worded(line: str) -> str:
        """The line with the names of nodes."""
        line = begins.sub(lambda found: (found[1] or "") + stems[found[2]], line)
        return files.sub(lambda found: names[found[1]], line)

    return worded
