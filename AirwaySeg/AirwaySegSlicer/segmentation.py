"""One segmentation from volume node to segmentation node: temporary folder, child process, result."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable

import slicer

from AirwaySegSlicer.nodes import segmentation_from_mask, write_volume
from AirwaySegSlicer.process import ConsoleProcess


def start_segmentation(
    volume_node: slicer.vtkMRMLScalarVolumeNode,
    launch: Callable[..., subprocess.Popen],
    on_progress: Callable[[str, int, int], None],
    on_finished: Callable[[slicer.vtkMRMLSegmentationNode | None, str], None],
) -> ConsoleProcess:
    """Start to segment the CT and return at once.

    ``on_finished`` is called once, when no file of the run is left: with (node, "") or, without a result, with
    (None, sentence); the sentence is empty when the run was cancelled.
    """
    folder = tempfile.mkdtemp(prefix="AirwaySeg-", dir=slicer.app.temporaryPath)
    ct_path, result_folder = os.path.join(folder, "ct.nrrd"), os.path.join(folder, "result")

    def on_completed(message: str) -> None:
        node = None
        try:
            if not message and not run.cancelled:
                node = segmentation_from_mask(os.path.join(result_folder, "airways.nrrd"), volume_node)
        except RuntimeError as error:
            message = str(error)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            on_finished(node, message)

    run = ConsoleProcess(launch, on_progress, on_completed)
    try:
        write_volume(volume_node, ct_path)
        run.start(["segment", ct_path, "-o", result_folder, "--no-measure", "--progress", "json"])
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return run
