"""Segment a chest CT: python segment_ct.py CT AIRWAYS.nrrd"""

import sys
from pathlib import Path

from AirwaySegLib.files.volume import read_ct, write_nrrd
from AirwaySegLib.pipeline import RunReport, load_model, segment
from AirwaySegLib.progress import silent
from AirwaySegLib.settings import SegmentSettings


def segment_ct(ct_file: Path, mask_file: Path) -> float:
    """Write the airway mask of a CT on the CT's own grid and return its volume in millilitres."""
    ct, warnings = read_ct(ct_file)
    run_report = RunReport(warnings)
    airways = segment(ct, load_model("default"), SegmentSettings(device="auto"), run_report, silent)
    write_nrrd(mask_file, airways.mask.astype("uint8"), like=ct)
    for warning in run_report.warnings:
        print(warning)
    voxel_mm3 = ct.spacing_mm[0] * ct.spacing_mm[1] * ct.spacing_mm[2]
    return float(airways.mask.sum()) * voxel_mm3 / 1000


if __name__ == "__main__":
    print(f"{segment_ct(Path(sys.argv[1]), Path(sys.argv[2])):.1f} ml of airway")
