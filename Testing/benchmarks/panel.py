"""For how long each step of the Slicer module holds the window still, with a CT of 512 x 512 x 400 voxels.

    .venv/bin/python Testing/benchmarks/panel.py

The module runs on Slicer's own scene and logics, with stand-ins for the window (Testing/slicerhost). The network is
left out: its mask is a drawn tree of 255 tubes. A hold is the longest time during which no event of the user is
answered; drawing the views is not in it.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / name) for name in (".", "support")]

import slicer
import slicerhost
from module_commands import REPORT
from module_desk import Desk
from phantoms import a_deep_tree, draw_tubes

from AirwaySegLib.files.volume import Volume, write_nrrd

SHAPE = (400, 512, 512)
SPACING_MM = (0.8, 0.65, 0.65)
MOST_SECONDS = 0.1
LIMIT_S = 300


def main() -> int:
    """Use the panel from the CT to the training case, and print the holds."""
    mask = draw_tubes(a_deep_tree(7), SHAPE, SPACING_MM)
    host = slicerhost.start()
    holds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["PATH"] = a_python_slicer(folder, mask) + os.pathsep + os.environ["PATH"]
        desk = Desk(host, a_ct(mask), mask)
        for step, work in steps_at(desk, folder).items():
            host.longest_block_s = 0.0
            begun = time.perf_counter()
            work()
            desk.wait(limit_s=LIMIT_S)
            holds[step] = host.longest_block_s
            note = "" if holds[step] <= MOST_SECONDS else f"  above {MOST_SECONDS:g} s"
            print(f"{step:45} {holds[step]:6.2f} s of {time.perf_counter() - begun:6.2f} s{note}", flush=True)
            if host.messages:
                print(host.messages)
                return 1
        host.clear()
    print(json.dumps({step: round(hold, 3) for step, hold in holds.items()}))
    return 0


def a_ct(mask: np.ndarray) -> slicer.vtkMRMLScalarVolumeNode:
    """A CT in which the tree is air in lungs of noise."""
    noise = np.random.default_rng(0).integers(-900, -800, SHAPE, dtype=np.int16)
    noise[:, :20] = 300
    noise[mask] -= 100
    z, y, x = SPACING_MM
    return slicer.util.addVolumeFromArray(noise, np.diag([-x, -y, z, 1.0]), "CT")


def a_python_slicer(folder: Path, mask: np.ndarray) -> str:
    """A folder for the PATH whose PythonSlicer segments at once, and leaves the rest to the real commands."""
    result = folder / "segmented"
    result.mkdir()
    write_nrrd(result / "airways.nrrd", mask.astype(np.uint8), Volume(mask, SPACING_MM))
    (result / "report.json").write_text(json.dumps(REPORT | {"warnings": []}))
    script = folder / "PythonSlicer"
    script.write_text(f'#!/bin/sh\n[ "$3" = segment ] && exec cp -r "{result}" "$6"\nexec "{sys.executable}" "$@"\n')
    script.chmod(0o755)
    return str(folder)


def steps_at(desk: Desk, folder: Path) -> dict[str, Callable[[], object]]:
    """What a person does, in this order."""

    def edit() -> None:
        """One stroke of the eraser; not counted, as it is Slicer's own."""
        desk.mask[100:110, 200:300] = False
        slicer.util.updateSegmentBinaryLabelmapFromArray(desk.mask.view(np.uint8), desk.airways, "airways", desk.ct)

    def surface() -> None:
        desk.airways.RemoveClosedSurfaceRepresentation()
        desk.host.run_unbroken(desk.airways.CreateClosedSurfaceRepresentation)

    def export(kind: str) -> Callable[[], None]:
        def press() -> None:
            desk.choose("exportComboBox", kind)
            desk.click("exportButton")

        return press

    def training() -> None:
        desk.open("trainTab")
        desk.ui.trainingFolderEdit.currentPath = str(folder / "training")

    def exporting() -> None:
        desk.open("exportTab")
        desk.ui.exportFolderEdit.currentPath = str(folder / "out")

    overlays = {key: (lambda key=key: desk.choose("overlayComboBox", key)) for key in ("generation", "fromCarina")}
    return {
        "segment: the CT out, mask and tree in": lambda: desk.click("segmentButton"),
        "(of that, Slicer's own surface)": surface,
        "measure: mask out, tree in": lambda: desk.click("measureButton"),
        "choose a branch": lambda: desk.select_branch(9),
        "open Overlays": lambda: desk.open("measureTab"),
        "overlay: generation on the surface": overlays["generation"],
        "overlay: distance on the surface": overlays["fromCarina"],
        "overlay: also over the slices": lambda: desk.click("slicesCheckBox"),
        "open Correct": lambda: desk.open("correctSection"),
        "(an edit of Slicer's)": edit,
        "after a pause: the edits counted": lambda: desk.host.pump(2.5),
        "update after an edit": lambda: desk.click("updateButton"),
        "take all corrections back": lambda: desk.click("takeBackButton"),
        "open Export": exporting,
        "export: mask": export(".nrrd"),
        "export: surface": export(".stl"),
        "export: whole case": export("case"),
        "open Fine-tune": training,
        "add a case": lambda: desk.click("addCaseButton"),
    }


if __name__ == "__main__":
    sys.exit(main())
