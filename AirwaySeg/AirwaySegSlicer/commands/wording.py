"""What a command says, with the names of nodes in the place of those of the temporary files."""

import re
from dataclasses import replace
from typing import Any

import slicer

from AirwaySegSlicer.commands.jobs import JobCallbacks


def in_words_of_the_scene(callbacks: JobCallbacks, names: dict[str, str]) -> JobCallbacks:
    """The callbacks, which reads ``names[file]`` wherever the command speaks of a temporary ``file``.

    A line may begin with the file's name without its ending.
    """
    folder = rf"(?:{re.escape(slicer.app.temporaryPath)}[\\/]AirwaySeg-[^\\/]+[\\/])?"
    files = re.compile(rf"{folder}(?<![\w.-])({'|'.join(map(re.escape, names))})")
    stems = {file.partition(".")[0]: name for file, name in names.items()}
    begins = re.compile(rf"^(airwayseg(?:-train)?: )?({'|'.join(map(re.escape, stems))})(?=: )")

    def said(line: str) -> str:
        line = begins.sub(lambda found: (found[1] or "") + stems[found[2]], line)
        return files.sub(lambda found: names[found[1]], line)

    def on_finished(result: Any, message: str) -> None:
        callbacks.on_finished(result, said(message))

    return replace(callbacks, on_finished=on_finished, on_line=lambda line: callbacks.on_line(said(line)))
