"""The options of `airwayseg grow`, `join` and `cut`; what they do is in `edit`, imported when one runs."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from AirwaySegLib.arguments import add_spacing, add_verbose
from AirwaySegLib.files.ct_checks import parse_spacing

if TYPE_CHECKING:
    from AirwaySegLib.commands.edit import EditRequest


def add_grow(parser: argparse.ArgumentParser) -> None:
    """The options of `airwayseg grow`."""
    _add_shared(parser, "a point of the missed airway, best at its tip, in mm (LPS); more prolong, steer or fork it")
    parser.add_argument("--ct", type=Path, help="the CT, on the mask's grid; without it --probability is needed")
    parser.add_argument("--probability", type=Path, help="raw probability, 0..255 on the mask's grid: guides the path")
    parser.set_defaults(run=_grow)


def add_join(parser: argparse.ArgumentParser) -> None:
    """The options of `airwayseg join`."""
    _add_shared(parser, "a point of an unconnected piece, or of the wrong joint of a subtree, in mm (LPS)")
    parser.add_argument(
        "--parent",
        metavar="X,Y,Z",
        help="a point of the airway to join it to; a piece without it joins the airways near it",
    )
    parser.add_argument("--pieces", type=Path, help="unconnected.nrrd: pieces that are not in the mask")
    parser.add_argument("--ct", type=Path, help="the CT, on the mask's grid; without it --probability is needed")
    parser.add_argument("--probability", type=Path, help="raw probability, 0..255 on the mask's grid: guides the path")
    parser.set_defaults(run=_join)


def add_cut(parser: argparse.ArgumentParser) -> None:
    """The options of `airwayseg cut`."""
    _add_shared(
        parser, "a point of the airway, in mm (LPS); the smaller side of its narrowest cross-section is removed"
    )
    parser.add_argument("--keep", metavar="X,Y,Z", help="a point of the side that stays (default: the larger side)")
    parser.set_defaults(run=_cut)


def _add_shared(parser: argparse.ArgumentParser, at: str) -> None:
    """What the commands share that edit a mask at points."""
    parser.add_argument("mask", type=Path, help="NIfTI, NRRD or MetaImage file; what is not 0 is airway")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the new mask, a .nrrd file")
    parser.add_argument("--at", metavar="X,Y,Z", action="append", required=True, help=at)
    parser.add_argument("--voxel", action="store_true", help="points are voxel indices x, y, z of the mask's own grid")
    add_spacing(parser)
    parser.add_argument("--force", action="store_true", help="replace an existing file")
    add_verbose(parser)


def _grow(options: argparse.Namespace) -> int:
    from AirwaySegLib.commands.edit import run_grow

    print(run_grow(_request(options)))
    return 0


def _join(options: argparse.Namespace) -> int:
    from AirwaySegLib.commands.edit import run_join

    print(run_join(_request(options)))
    return 0


def _cut(options: argparse.Namespace) -> int:
    from AirwaySegLib.commands.edit import run_cut

    print(run_cut(_request(options)))
    return 0


def _request(options: argparse.Namespace) -> "EditRequest":
    """What `grow`, `join` and `cut` share, and what only some of them have."""
    from AirwaySegLib.commands.edit import EditRequest, parse_point

    others = {name: getattr(options, name, None) for name in ("keep", "parent")}
    return EditRequest(
        mask=options.mask,
        output=options.output,
        points=tuple(map(parse_point, options.at)),
        **{name: None if text is None else parse_point(text) for name, text in others.items()},
        ct=getattr(options, "ct", None),
        probability=getattr(options, "probability", None),
        pieces=getattr(options, "pieces", None),
        voxels=options.voxel,
        force=options.force,
        spacing_mm=parse_spacing(options.spacing),
    )
