"""The options of `airwayseg cohort`."""

import argparse
from pathlib import Path


def add_cohort_options(parser: argparse.ArgumentParser) -> None:
    """Add what `airwayseg cohort` takes besides the settings of a segmentation."""
    parser.add_argument(
        "input",
        nargs="+",
        type=Path,
        help="folder that is searched for CTs (DICOM, NIfTI, NRRD, MetaImage), a file, a pattern such as */ct.nii, "
        "or a CSV with the columns id and ct (and optionally series, mask, patient, date, group)",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for results, tables and report")
    parser.add_argument("--list", action="store_true", help="only show what would be run, and what is left out and why")
    parser.add_argument(
        "--all-series", action="store_true", help="take every reconstruction of a scan, not only the best for airways"
    )
    parser.add_argument(
        "--thickest", type=float, default=3.5, metavar="MM", help="leave out thicker slices (default: %(default)s mm)"
    )
    add_dicom_seg(parser)
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--scheduler", default="", metavar="ADDRESS", help="run the cases on this Dask cluster")
    where.add_argument("--workers", type=int, default=0, metavar="N", help="run N cases at once here (needs Dask)")
    parser.add_argument(
        "--resources", default="", metavar="NAME=AMOUNT", help="what a case needs of a Dask worker, such as GPU=1"
    )
    parser.add_argument(
        "--shard", default="1/1", metavar="I/N", help="only every Nth case, starting with the Ith; writes no tables"
    )


def add_dicom_seg(parser: argparse.ArgumentParser) -> None:
    """Add the option for a DICOM Segmentation beside the result."""
    parser.add_argument(
        "--dicom-seg",
        choices=("airways", "lobes"),
        default="",
        help="for DICOM also airways.dcm, a DICOM Segmentation, with a segment for each lobe if wanted (needs "
        "highdicom)",
    )
