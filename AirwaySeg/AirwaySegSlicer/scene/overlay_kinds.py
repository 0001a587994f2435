"""The overlays: which measure each shows, its legend, colours and names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import slicer
from slicer.i18n import tr as _

from AirwaySegSlicer.scene.comparison import AGREEMENT
from AirwaySegSlicer.scene.maps import BRANCHES, FROM_CARINA, PROBABILITY, TO_CENTERLINE, TO_WALL

ORIGINS = "origin"
"""The overlay that shows voxels as they are now, not those of a measurement."""
OF_THE_SCENE = (ORIGINS, AGREEMENT)
"""Overlays that need no measurement."""

# As in the library. From white over yellow, red, violet and blue to green: safe for colour-blind readers.
GENERATION_RAMP = "e6fafa f8df58 fa8c1e dc533c b75880 806bb9 249efa 65dccd bdd992"
LOBE_COLOURS = "9aa0a6 4e9fe0 57c08b e5c04d e07a5f a678c9"
SEGMENT_COLOURS = (
    "9aa0a6 08519c 4e9fe0 9ecae1 238b45 a1d99b b30000 ef6548 fdbb84 8c510a dfc27d "
    "54278f 807dba c994c7 e7298a e5c04d a63603 fd8d3c 525252"
)
SEGMENT_NAMES = (
    *("RB1 apical, right upper lobe", "RB2 posterior, right upper lobe", "RB3 anterior, right upper lobe"),
    *("RB4 lateral, right middle lobe", "RB5 medial, right middle lobe", "RB6 superior, right lower lobe"),
    *("RB7 medial basal, right lower lobe", "RB8 anterior basal, right lower lobe"),
    *("RB9 lateral basal, right lower lobe", "RB10 posterior basal, right lower lobe"),
    *("LB1+2 apicoposterior, left upper lobe", "LB3 anterior, left upper lobe"),
    *("LB4 superior lingular, left upper lobe", "LB5 inferior lingular, left upper lobe"),
    *("LB6 superior, left lower lobe", "LB8 anteromedial basal, left lower lobe"),
    *("LB9 lateral basal, left lower lobe", "LB10 posterior basal, left lower lobe"),
)
"""The segments in the order of their numbers, in the words of the library."""
ORIGIN_COLOURS = "4e9fe0 57c08b a678c9 e5c04d e0453a"
AGREEMENT_COLOURS = "c8cdd2 e69f00 0072b2"
"""Grey where both agree; orange and blue, which colour-blind readers can tell apart."""

NUMBER_RAMP = "440154 472d7b 3b528b 2c728e 21918c 28ae80 5ec962 addc30 fde725"


def lobe_names(centerline_node: slicer.vtkMRMLModelNode) -> list[str]:
    """The names of the five lobes in the order of their numbers; a lobe without a branch has its number as name."""
    cells = centerline_node.GetPolyData().GetCellData()
    numbers, words = cells.GetArray("lobe"), cells.GetAbstractArray("lobe_name")
    known = {int(numbers.GetValue(cell)): words.GetValue(cell) for cell in range(numbers.GetNumberOfValues())}
    return [known.get(number, _("lobe {number}").format(number=number)) for number in range(1, 6)]


def _lobes(centerline_node: slicer.vtkMRMLModelNode, highest: float) -> list[str]:
    return [_("no lobe"), *lobe_names(centerline_node)]


def _segments(centerline_node: slicer.vtkMRMLModelNode, highest: float) -> list[str]:
    return [_("no segment"), *(name.partition(", ")[0] for name in SEGMENT_NAMES)]


def _origins(centerline_node: slicer.vtkMRMLModelNode, highest: float) -> list[str]:
    return [_("network"), _("open lumen"), _("repair"), _("click"), _("by hand")]


def _agreements(centerline_node: slicer.vtkMRMLModelNode, highest: float) -> list[str]:
    return [_("in both"), _("only in this"), _("only in the other")]


def _generations(centerline_node: slicer.vtkMRMLModelNode, highest: float) -> list[str]:
    return [str(generation) for generation in range(int(highest) + 1)]


@dataclass(frozen=True)
class Overlay:
    """A measure that is shown as colours.

    ``title`` is its name in the panel, ``legend`` the legend's title, with the unit. ``values`` is the array in the
    file of voxels; with ``column`` it has branch numbers, and that array of the centerline's branches is shown.
    ``colours`` is the ramp from the lowest value to the highest. ``names(centerline, highest)`` are the names of the
    integers from 0 on; without it the values are numbers from 0 to the highest.
    """

    key: str
    title: str
    legend: str
    values: str
    column: str = ""
    colours: str = NUMBER_RAMP
    names: Callable[[slicer.vtkMRMLModelNode, float], list[str]] | None = None


OVERLAYS = {
    overlay.key: overlay
    for overlay in (
        Overlay("generation", _("Generation"), _("Generation"), BRANCHES, "generation", GENERATION_RAMP, _generations),
        Overlay("lobe", _("Lobe (estimate)"), _("Lobe (estimate)"), BRANCHES, "lobe", LOBE_COLOURS, _lobes),
        Overlay(
            "segment", _("Segment (estimate)"), _("Segment (estimate)"), BRANCHES, "segment", SEGMENT_COLOURS, _segments
        ),
        Overlay("diameter", _("Diameter"), _("Mean diameter (mm)"), BRANCHES, "mean_diameter_mm"),
        Overlay("wallThickness", _("Wall thickness"), _("Wall thickness (mm)"), BRANCHES, "wall_thickness_mm"),
        Overlay("wallArea", _("Wall area fraction"), _("Wall area fraction"), BRANCHES, "wall_area_fraction"),
        Overlay("artery", _("Airway-to-artery ratio"), _("Airway-to-artery ratio"), BRANCHES, "airway_artery_ratio"),
        Overlay("toCenterline", _("Distance to the centerline"), _("To the centerline (mm)"), TO_CENTERLINE),
        Overlay("toWall", _("Distance to the wall"), _("To the wall (mm)"), TO_WALL),
        Overlay("fromCarina", _("Distance from the carina"), _("From the carina (mm)"), FROM_CARINA),
        Overlay("probability", _("Probability"), _("Probability (0 to 1)"), PROBABILITY),
        Overlay(ORIGINS, _("Origin of the voxels"), _("Origin"), ORIGINS, "", ORIGIN_COLOURS, _origins),
        Overlay(AGREEMENT, _("Agreement"), _("Agreement"), AGREEMENT, "", AGREEMENT_COLOURS, _agreements),
    )
}


def ramp(colours: str, count: int) -> list[tuple[float, float, float]]:
    """``count`` colours (RGB, 0..1), evenly spaced along a ramp of hexadecimal colours."""
    import numpy as np

    anchors = np.array([list(bytes.fromhex(colour)) for colour in colours.split()]) / 255
    positions = np.linspace(0, len(anchors) - 1, count) if count > 1 else [0.0]
    red, green, blue = (np.interp(positions, range(len(anchors)), channel).tolist() for channel in anchors.T)
    return list(zip(red, green, blue, strict=True))
