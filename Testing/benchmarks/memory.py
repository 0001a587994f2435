"""Peak memory and seconds of `airwayseg segment` for a CT of 512 x 512 x 600 voxels.

    .venv/bin/python Testing/benchmarks/memory.py [--ct CT] [--options "--precision float32"]

The CT (by default a simulated one) is resampled to that size. The figure is the operating system's own: the largest
resident set of the child process.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from AirwaySegTraining.simulator.simulate import simulate_case

SIZE_XYZ = (512, 512, 600)
LARGEST_GIB = 4.0


def big_ct(path: Path | None) -> sitk.Image:
    """The CT resampled to `SIZE_XYZ`, with the spacing that this gives."""
    if path is None:
        case = simulate_case(7)
        image = sitk.GetImageFromArray(case.ct)
        image.SetSpacing(tuple(reversed(case.spacing_mm)))
    else:
        image = sitk.ReadImage(str(path))
    spacing = [mm * old / new for mm, old, new in zip(image.GetSpacing(), image.GetSize(), SIZE_XYZ, strict=True)]
    return sitk.Resample(
        image, SIZE_XYZ, sitk.Transform(), sitk.sitkLinear, image.GetOrigin(), spacing, image.GetDirection(), -1000
    )


def main() -> int:
    """Run the command as a child process and print its peak."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ct", type=Path)
    parser.add_argument("--options", default="", help="more options of `airwayseg segment`, in one text")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        # Stored as NIfTI files often are, from right to left and back to front, so that it has to be turned.
        sitk.WriteImage(sitk.DICOMOrient(big_ct(options.ct), "RAS"), f"{folder}/ct.nrrd")
        command = [sys.executable, "-m", "AirwaySegLib", "segment", f"{folder}/ct.nrrd", "-o", f"{folder}/result"]
        code = subprocess.run([*command, "--progress", "none", *options.options.split()]).returncode
        if code:
            return code
        report = json.loads(Path(folder, "result", "report.json").read_text())
    unit = 2**30 if sys.platform == "darwin" else 2**20  # bytes there, KiB on Linux
    peak_gib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / unit
    box = [stop - start for start, stop in report["decisions"]["box_zyx"]]
    print(f"box {box} of {list(reversed(SIZE_XYZ))}, {report['decisions']}")
    print(f"peak {peak_gib:.2f} GiB ({'within' if peak_gib <= LARGEST_GIB else 'above'} {LARGEST_GIB:g})")
    print(f"{np.sum(list(report['seconds'].values())):.0f} s: {report['seconds']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
