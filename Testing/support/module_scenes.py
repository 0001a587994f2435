"""What the tests of the Slicer module share: a drawn CT in Slicer's scene, what the commands leave, Slicer's Python."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import slicer
import slicerhost as slicerhost  # for slicer.i18n, which the files below import
from module_commands import REPORT
from phantoms import a_forked_tree, draw_tubes

from AirwaySegSlicer import event_loop
from AirwaySegSlicer.commands.jobs import Job, Listener, start_job
from AirwaySegSlicer.scene.nodes import all_nodes, ijk_to_ras, write_volume

assert slicerhost  # Imported for what it makes importable.

# Columns, rows and slices of the CT run to the patient's front, right and head, and no edge is as long as another.
IJK_TO_RAS = np.array([[0, -0.9, 0, 40], [1.1, 0, 0, -30], [0, 0, 1.2, -20], [0, 0, 0, 1.0]])


def a_ct(name: str = "CT", moved: bool = False) -> tuple[slicer.vtkMRMLScalarVolumeNode, np.ndarray]:
    """A CT of a forked tree in the scene, and the tree's mask (Z, Y, X); ``moved`` puts it below a transform."""
    # The tree is drawn as (z, y to the back, x to the left); columns of the CT run along y, rows along x.
    drawn = draw_tubes(a_forked_tree(0.5), (85, 40, 100), (1.2, 1.1, 0.9))
    mask = np.ascontiguousarray(drawn.transpose(0, 2, 1)[:, :, ::-1])
    hu = np.where(mask, -950, -700).astype(np.int16)
    hu[:, :6] = 300  # Without bone it would be no CT.
    hu[mask] = -950
    node = slicer.util.addVolumeFromArray(hu, IJK_TO_RAS, name)
    if moved:
        transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "Moved")
        turned = np.array([[0, -1, 0, 5], [1, 0, 0, -7], [0, 0, 1, 9], [0, 0, 0, 1.0]])
        slicer.util.updateTransformMatrixFromArray(transform, turned)
        node.SetAndObserveTransformNodeID(transform.GetID())
    return node, mask


def write_result(folder: Path | str, ct: slicer.vtkMRMLScalarVolumeNode, mask: np.ndarray) -> str:
    """A folder as `airwayseg segment --no-measure` leaves it; without traces in the scene."""
    os.makedirs(folder, exist_ok=True)
    node = slicer.vtkMRMLScalarVolumeNode()
    node.SetIJKToRASMatrix(ijk_to_ras(ct))
    node.SetAndObserveImageData(type(ct.GetImageData())())
    slicer.util.updateVolumeFromArray(node, mask.astype(np.uint8))
    write_volume(node, os.path.join(folder, "airways.nrrd"))
    write_volume(node, os.path.join(folder, "origin.nrrd"))  # All is the network's.
    Path(folder, "report.json").write_text(json.dumps(REPORT))
    return str(folder)


def write_reviewed(folder: Path | str, ct: slicer.vtkMRMLScalarVolumeNode, mask: np.ndarray) -> dict[int, np.ndarray]:
    """A result as of `write_result` with a probability, repairs and unconnected pieces; returns these by number.

    Repair 1 was applied and brought piece 2, all that lies at y of 64 and more. Repair 2 would bring piece 3 and repair
    3, which springs from it, piece 4. Nothing brings piece 5. The bridges are `reviewed_bridges`.
    """
    write_result(folder, ct, mask)
    pieces = {number: np.zeros(mask.shape, bool) for number in (2, 3, 4, 5)}
    pieces[2][:, 64:] = mask[:, 64:]
    pieces[3][70:75, 30:35, 5:9] = pieces[4][60:65, 30:35, 5:9] = pieces[5][50:53, 30:33, 5:8] = True
    bridges = reviewed_bridges(mask)
    facts = {1: ("applied", [1, 2], [2]), 2: ("proposed", [1, 3], [3]), 3: ("proposed", [3, 4], [4])}
    repairs = [
        {
            "number": number,
            "state": state,
            "reason": "" if state == "applied" else f"Its score of 0.{4 - number} is below 0.5.",
            "method": "path",
            "score": 0.7 if state == "applied" else (4 - number) / 10,
            "length_mm": 3.0,
            "joins": joins,
            "branch": 1,
            "place_mm": lps_of(ct, bridges[number]),
            "fragments": [{"number": n, "volume_mm3": 9.0, "length_mm": 10.0 * n, "radius_mm": 1.0} for n in brought],
            "facts": {},
            "voxel_runs": runs_of(bridges[number]),
        }
        for number, (state, joins, brought) in facts.items()
    ]
    fragments = [{"number": n, "joined": n == 2, "voxel_runs": runs_of(piece)} for n, piece in pieces.items()]
    to_lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ slicer.util.arrayFromVTKMatrix(ijk_to_ras(ct))
    document = {"repairs": repairs, "fragments": fragments, "ijk_to_lps": to_lps.tolist()}
    Path(folder, "repairs.json").write_text(json.dumps(document))
    probability = np.where(mask, 240, 0).astype(np.uint8)
    unconnected = sum(number * pieces[number].astype(np.uint8) for number in (3, 4, 5))
    origin = np.where(bridges[1] & mask, 3, mask).astype(np.uint8)
    for name, values in (("probability", probability), ("unconnected", unconnected), ("origin", origin)):
        node = slicer.vtkMRMLScalarVolumeNode()
        node.SetIJKToRASMatrix(ijk_to_ras(ct))
        node.SetAndObserveImageData(type(ct.GetImageData())())
        slicer.util.updateVolumeFromArray(node, values)
        write_volume(node, os.path.join(folder, f"{name}.nrrd"))
    return pieces


def reviewed_bridges(mask: np.ndarray) -> dict[int, np.ndarray]:
    """The bridges of `write_reviewed` by the number of their repair."""
    bridges = {number: np.zeros(mask.shape, bool) for number in (1, 2, 3)}
    bridges[1][:, 60:64] = mask[:, 60:64]
    bridges[2][70:72, 30:32, 9:12] = bridges[3][65:70, 31:33, 6:8] = True
    return bridges


def runs_of(voxels: np.ndarray) -> list[list[int]]:
    """Voxels (Z, Y, X) as rows (z, y, x, 1)."""
    return [[*voxel, 1] for voxel in np.argwhere(voxels).tolist()]


def lps_of(ct: slicer.vtkMRMLScalarVolumeNode, voxels: np.ndarray) -> list[float]:
    """The middle of voxels (Z, Y, X), in LPS."""
    middle = np.append(np.argwhere(voxels).mean(axis=0)[::-1], 1.0)
    x, y, z, _one = slicer.util.arrayFromVTKMatrix(ijk_to_ras(ct)) @ middle
    return [-x, -y, z]


def python_slicer(folder: Path, stand_ins: bool = False) -> str:
    """A folder for the PATH with an executable PythonSlicer that is this Python with its packages.

    With ``stand_ins`` slow commands are those of module_commands.py.
    """
    script = folder / "PythonSlicer"
    real = f'exec "{sys.executable}"'
    stand_in = f'{real} "{Path(__file__).with_name("module_commands.py")}" "$@"'
    library = ("AirwaySegLib segment", "AirwaySegLib.early measure")
    training = ("AirwaySegTraining finetune", "AirwaySegTraining simulate", "AirwaySegTraining cases")
    wanted = " | ".join(f'"{command}"*' for command in (*library, *training, "AirwaySegSlicer.commands.probe_child "))
    choice = f'case "$2 $3" in {wanted}) {stand_in};; esac\n' if stand_ins else ""
    script.write_text(f'#!/bin/sh\n{choice}{real} "$@"\n')
    script.chmod(0o755)
    return str(folder)


def launch_real(arguments, useStartupEnvironment=True, updateEnvironment=None, cwd=None):
    """As `slicer.util.launchConsoleProcess`, with the environment of this process."""
    environment = {**os.environ, **(updateEnvironment or {})}
    return subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=cwd, env=environment
    )


class StandIn:
    """In the place of `launchConsoleProcess`: does ``work(arguments)`` instead of the command, when `end` is called.

    ``work`` returns the lines that the command prints, or raises `Failed` with the last one.
    """

    def __init__(self, work: Callable[[list[str]], list[str]]) -> None:
        self.work = work
        self.commands: list[list[str]] = []
        self.processes: list[Running] = []

    def __call__(self, arguments, **options):
        self.commands.append(list(arguments))
        self.processes.append(Running())
        return self.processes[-1]

    def end(self) -> None:
        """Let the command that was started last do its work and end, and the host hear of it."""
        try:
            lines, code = self.work(self.commands[-1][3:]), 0
        except Failed as failure:
            lines, code = [str(failure)], 2
        self.processes[-1].end(lines, code)
        slicerhost.start().pump(lambda: not event_loop._later._waiting)


class Failed(Exception):
    """The command ends with this sentence."""


class Running:
    """A process that is alive until it is told its end."""

    pid = 2**22 + 1  # of no process

    def __init__(self) -> None:
        reading, self._writing = os.pipe()
        self.stdout = os.fdopen(reading, encoding="utf-8")
        self._code: int | None = None

    def end(self, lines: list[str], code: int) -> None:
        """Print these lines and end with this code."""
        self._code = code
        with os.fdopen(self._writing, "w", encoding="utf-8") as stream:
            stream.writelines(f"{line}\n" for line in lines)

    def poll(self) -> int | None:
        """The exit code; None as long as it runs."""
        return self._code

    def wait(self) -> int:
        """The exit code; it has ended when its output has."""
        assert self._code is not None
        return self._code


def end_of(job: Job) -> tuple[object, str]:
    """Result and sentence of a job that is run with the real command and waited for."""
    ends: list[tuple[object, str]] = []
    start_job(job, Listener(lambda *end: ends.append(end)), launch_real, blocking=True)
    assert len(ends) == 1
    return ends[0]


def snapshot() -> dict[str, int]:
    """Every node of the scene with the time of its last change."""
    return {node.GetID(): node.GetMTime() for node in all_nodes()}
