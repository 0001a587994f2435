"""Overlays: airways coloured by a measure of their branches or voxels, or by their origin, in 3D and slices.

The surface is a model with a point array named like the overlay, so that it stays coloured in a saved scene. Slice
views get a volume of the airways' bounding box as their foreground.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import slicer
import vtk
from slicer.i18n import tr as _

from AirwaySegSlicer.scene.airway_voxels import NOTHING, AirwayVoxels
from AirwaySegSlicer.scene.comparison import AGREEMENT, agreement_surface, agreement_voxels
from AirwaySegSlicer.scene.freshness import current_signature, sign, sign_drawn, signature_of, update_marks
from AirwaySegSlicer.scene.maps import Maps
from AirwaySegSlicer.scene.nodes import (
    CENTERLINE,
    COMPARED,
    INITIAL,
    ORIGIN,
    ROLE,
    SLICES,
    SURFACE,
    add_companion,
    companion,
    remove_companion,
    shifted,
    undone_on_failure,
)
from AirwaySegSlicer.scene.origin import origins_of
from AirwaySegSlicer.scene.overlay_kinds import OF_THE_SCENE, ORIGINS, OVERLAYS, Overlay, ramp
from AirwaySegSlicer.scene.segments import check_airways, closed_surface

Array = Any

SHOWN, BEFORE = ROLE + "overlay", ROLE + "foregroundBefore"
HID = ROLE + "hid"
COVERING = ("Visibility3D", "Visibility2DFill")
"""Properties of a segmentation's display that would cover the colours: its surface in 3D, its fill in the slices."""
UNKNOWN = (0.6, 0.6, 0.6)
"""Colour of a surface where its branch has no value."""


@dataclass(frozen=True)
class OverlayLook:
    """Where an overlay is shown, its opacity in the slice views (0..1), and whether with a legend."""

    surface: bool = True
    slices: bool = False
    opacity: float = 0.6
    legend: bool = True


def needs_measuring(segmentation_node: slicer.vtkMRMLSegmentationNode, key: str, maps: Maps) -> bool:
    """Whether the airways must be measured before an overlay can be shown."""
    unmeasured = companion(segmentation_node, CENTERLINE) is None or maps.path(segmentation_node) is None
    return key not in OF_THE_SCENE and unmeasured


def show_overlay(segmentation_node: slicer.vtkMRMLSegmentationNode, key: str, look: OverlayLook, maps: Maps) -> None:
    """Show an overlay instead of an earlier one; raises RuntimeError when its measure is not known."""
    overlay = OVERLAYS[key]
    check_airways(segmentation_node)
    made = {ORIGINS: _origin_voxels, AGREEMENT: agreement_voxels}.get(key)
    voxels = made(segmentation_node) if made else _measured_voxels(segmentation_node, overlay, maps)
    values = values_of(voxels, overlay, companion(segmentation_node, CENTERLINE))
    with undone_on_failure():
        surface = coloured_surface(segmentation_node, voxels, values, overlay) if look.surface else None
    volume = voxels.volume(values, whole=overlay.names is not None) if look.slices else None
    hide_overlay(segmentation_node)
    colours = _colours(overlay, segmentation_node, float(values.max()))
    segmentation_node.SetAttribute(SHOWN, key)
    if surface is not None:
        _show_surface(segmentation_node, surface, overlay, colours)
    if volume is not None:
        _show_slices(segmentation_node, volume, overlay, colours, look.opacity)
    if look.legend and (look.surface or look.slices):
        _show_legend(companion(segmentation_node, SURFACE if look.surface else SLICES), overlay)
    found = (companion(segmentation_node, role) for role in (SURFACE, SLICES))
    drawn = [node for node in found if node is not None]
    if key in OF_THE_SCENE:
        of_comparison = signature_of(companion(segmentation_node, COMPARED))
        for node in drawn:
            sign(node, of_comparison if key == AGREEMENT else current_signature(segmentation_node))
        update_marks(segmentation_node)
    else:
        sign_drawn(segmentation_node, drawn)


def _measured_voxels(segmentation_node: slicer.vtkMRMLSegmentationNode, overlay: Overlay, maps: Maps) -> AirwayVoxels:
    """The voxels of the last measurement; RuntimeError where there is none, or it lacks the overlay's values."""
    path = maps.path(segmentation_node)
    if path is None or needs_measuring(segmentation_node, overlay.key, maps):
        raise RuntimeError(_("Measure {name} first.").format(name=segmentation_node.GetName()))
    voxels = AirwayVoxels.read(path)
    if overlay.values not in voxels.columns:
        sentence = _("The network's probability of {name} is not known.")
        raise RuntimeError(sentence.format(name=segmentation_node.GetName()))
    return voxels


def _origin_voxels(segmentation_node: slicer.vtkMRMLSegmentationNode) -> AirwayVoxels:
    """The voxels as they are now, their origins counted from 0; RuntimeError where these are not known."""
    import numpy as np

    found = origins_of(segmentation_node)
    if found is None:
        raise RuntimeError(_unknown_origin(segmentation_node).format(name=segmentation_node.GetName()))
    where = np.flatnonzero(found.array)
    if not len(where):
        raise RuntimeError(_("The airways of {name} are empty.").format(name=segmentation_node.GetName()))
    z, y, x = (int(count) for count in found.array.shape)
    to_ras = slicer.util.arrayFromVTKMatrix(shifted(found.matrix, list(found.low)))
    values = found.array.ravel()[where].astype(np.float32) - 1
    return AirwayVoxels(where, {ORIGINS: values}, (z, y, x), to_ras)


def _unknown_origin(segmentation_node: slicer.vtkMRMLSegmentationNode) -> str:
    """Why the origins of voxels are not known, with the place of the name."""
    if companion(segmentation_node, ORIGIN) is not None:
        return _("The origin of the voxels of {name} is not known: they were moved to another grid.")
    if companion(segmentation_node, INITIAL) is not None:
        return _("The origin of the voxels of {name} is not known: segment it again with this version.")
    return _("The origin of the voxels of {name} is not known: another program made them.")


def hide_overlay(segmentation_node: slicer.vtkMRMLSegmentationNode) -> None:
    """Remove the overlay and restore what it replaced."""
    restore_foreground(segmentation_node)
    remove_companion(segmentation_node, SLICES)
    remove_companion(segmentation_node, SURFACE)
    for part in COVERING:
        if segmentation_node.GetAttribute(HID + part):
            getattr(segmentation_node.GetDisplayNode(), f"Set{part}")(True)
            segmentation_node.RemoveAttribute(HID + part)
    segmentation_node.RemoveAttribute(SHOWN)


def _hide(segmentation_node: slicer.vtkMRMLSegmentationNode, part: str) -> None:
    """Hide one of `COVERING` until the overlay is removed, unless the user has hidden it."""
    display = segmentation_node.GetDisplayNode()
    if getattr(display, f"Get{part}")():
        getattr(display, f"Set{part}")(False)
        segmentation_node.SetAttribute(HID + part, "1")


def shown_overlay(segmentation_node: slicer.vtkMRMLSegmentationNode) -> str:
    """The key of the overlay that is shown, empty if none is."""
    return segmentation_node.GetAttribute(SHOWN) or ""


# Values --------------------------------------------------------------------------------------------------------------


def values_of(voxels: AirwayVoxels, overlay: Overlay, centerline_node: slicer.vtkMRMLModelNode) -> Array:
    """The overlay's value of each voxel, (N,) float32; `NOTHING` where its branch has none.

    Raises RuntimeError where no branch has one, because the measurement had no CT.
    """
    column = voxels.columns[overlay.values]
    if not overlay.column:
        return column
    values = branch_values(centerline_node, overlay.column)
    if (values == NOTHING).all():
        sentence = _("{overlay}: no branch was measured. Its CT must be in the scene when the airways are measured.")
        raise RuntimeError(sentence.format(overlay=overlay.title))
    return values[column]


def branch_values(centerline_node: slicer.vtkMRMLModelNode, column: str) -> Array:
    """A measure of the branches, indexed by their id, float32; `NOTHING` for id 0 and where it is unknown."""
    import numpy as np

    if centerline_node.GetPolyData().GetCellData().GetAbstractArray(column) is None:
        raise RuntimeError(
            _("{name} was measured by an older version: measure it again.").format(name=centerline_node.GetName())
        )
    ids = slicer.util.arrayFromModelCellData(centerline_node, "branch_id")
    values = np.full(int(ids.max(initial=0)) + 1, NOTHING, np.float32)
    values[ids] = np.nan_to_num(slicer.util.arrayFromModelCellData(centerline_node, column), nan=NOTHING)
    return values


def coloured_surface(
    segmentation_node: slicer.vtkMRMLSegmentationNode, voxels: AirwayVoxels, values: Array, overlay: Overlay
) -> slicer.vtkMRMLModelNode:
    """The segment's closed surface, or that of a comparison, with the values of the nearest voxels at its points.

    Where these have none the value is NaN: of the colours of a lookup table VTK copies that of NaN, and not that of
    values below the range, which would be drawn like the lowest one.
    """
    import numpy as np
    from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

    of_comparison = overlay.key == AGREEMENT
    polydata = agreement_surface(segmentation_node) if of_comparison else closed_surface(segmentation_node)
    found = voxels.near(vtk_to_numpy(polydata.GetPoints().GetData()), values)
    scalars = numpy_to_vtk(np.where(found < 0, np.float32(np.nan), found), deep=True)
    scalars.SetName(overlay.key)
    polydata.GetPointData().AddArray(scalars)
    model = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLModelNode")
    model.SetAndObservePolyData(polydata)
    model.CreateDefaultDisplayNodes()
    return model


# Display -------------------------------------------------------------------------------------------------------------


def _colours(
    overlay: Overlay, segmentation_node: slicer.vtkMRMLSegmentationNode, highest: float
) -> tuple[list[tuple[str, tuple[float, float, float]]], tuple[float, float]]:
    """(name, colour) pairs, and the range of values that they span."""
    import numpy as np

    if overlay.names:
        names = overlay.names(companion(segmentation_node, CENTERLINE), highest)
        limits = (-0.5, len(names) - 0.5)
    else:
        names = [f"{value:.1f}" for value in np.linspace(0, highest, 256)]
        limits = (0.0, highest)
    return list(zip(names, ramp(overlay.colours, len(names)), strict=True)), limits


def _colour_table(overlay: Overlay, colours: list[tuple[str, tuple[float, float, float]]]) -> str:
    """The id of a new colour table in the scene, which is removed with the display node that uses it."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLColorTableNode", f"AirwaySeg {overlay.key}")
    node.SetTypeToUser()
    node.SetNumberOfColors(len(colours))
    for number, (name, colour) in enumerate(colours):
        node.SetColor(number, name, *colour, 1.0)
    node.SetHideFromEditors(True)
    node.SetAttribute(ROLE + "own", "1")
    return node.GetID()


def _show_surface(
    segmentation_node: slicer.vtkMRMLSegmentationNode, model: slicer.vtkMRMLModelNode, overlay: Overlay, colours: tuple
) -> None:
    add_companion(segmentation_node, SURFACE, model, "surface")
    table, (low, high) = colours
    display = model.GetDisplayNode()
    display.SetAndObserveColorNodeID(_colour_table(overlay, table))
    lookup = display.GetColorNode().GetLookupTable()
    lookup.SetTableRange(low, high)
    lookup.SetNanColor(*UNKNOWN, 1.0)
    display.SetActiveScalar(overlay.key, vtk.vtkAssignAttribute.POINT_DATA)
    display.SetScalarRangeFlag(display.UseManualScalarRange)
    display.SetScalarRange(low, high)
    display.SetScalarVisibility(True)
    display.SetVisibility2D(False)
    _hide(segmentation_node, "Visibility3D")


def _show_slices(
    segmentation_node: slicer.vtkMRMLSegmentationNode,
    map_node: slicer.vtkMRMLScalarVolumeNode,
    overlay: Overlay,
    colours: tuple,
    opacity: float,
) -> None:
    map_node.SetName("overlay")
    map_node.SetHideFromEditors(True)  # Before a selector offers it.
    slicer.mrmlScene.AddNode(map_node)
    add_companion(segmentation_node, SLICES, map_node, "overlay")
    table, (low, high) = colours
    # Slicer's default display node would compute a window first, which takes longer than all the rest.
    display = slicer.vtkMRMLScalarVolumeDisplayNode()
    display.AutoWindowLevelOff()
    slicer.mrmlScene.AddNode(display)
    map_node.SetAndObserveDisplayNodeID(display.GetID())
    display.SetAndObserveColorNodeID(_colour_table(overlay, table))
    display.SetWindowLevelMinMax(low, high)
    display.AutoThresholdOff()
    display.SetThreshold(NOTHING / 2, high + 1)
    display.ApplyThresholdOn()
    display.InterpolateOff()
    _hide(segmentation_node, "Visibility2DFill")
    for composite in slice_composites():
        before = composite.GetForegroundVolumeID() or ""
        segmentation_node.SetAttribute(_before(composite), f"{composite.GetForegroundOpacity()} {before}")
        composite.SetForegroundVolumeID(map_node.GetID())
        composite.SetForegroundOpacity(opacity)


def set_opacity(segmentation_node: slicer.vtkMRMLSegmentationNode, opacity: float) -> None:
    """Set the opacity (0..1) of the overlay in the slice views."""
    node = companion(segmentation_node, SLICES)
    for composite in slice_composites():
        if node is not None and composite.GetForegroundVolumeID() == node.GetID():
            composite.SetForegroundOpacity(opacity)


def slice_composites() -> list[slicer.vtkMRMLSliceCompositeNode]:
    """The composite nodes of all slice views."""
    return slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")


def _before(composite: slicer.vtkMRMLSliceCompositeNode) -> str:
    return f"{BEFORE}.{composite.GetLayoutName() or composite.GetID()}"


def restore_foreground(segmentation_node: slicer.vtkMRMLSegmentationNode) -> None:
    """Restore the slices' foreground from before the overlay, unless the user has changed it meanwhile."""
    node = companion(segmentation_node, SLICES)
    for composite in slice_composites():
        opacity, _space, before = (segmentation_node.GetAttribute(_before(composite)) or "").partition(" ")
        segmentation_node.RemoveAttribute(_before(composite))
        if opacity and node is not None and composite.GetForegroundVolumeID() == node.GetID():
            composite.SetForegroundVolumeID(before or None)
            composite.SetForegroundOpacity(float(opacity))


FEW_NAMES, BELOW = 4, (0.98, 0.02)
"""A legend with so few names is low enough for the lower right corner, beside the tree; others stand half-way up."""


def legend_size(names: list[str]) -> tuple[float, float]:
    """Width and height of a legend as parts of the view's; without names it has numbers.

    VTK makes its text as large as these allow: so that it can be read, and covers little of the airways.
    """
    if not names:
        return 0.08, 0.3
    longest = max(len(name) for name in names)
    return min(max(0.015 * longest, 0.08), 0.3), min(max(0.05 * len(names), 0.15), 0.6)


def _show_legend(node: slicer.vtkMRMLDisplayableNode, overlay: Overlay) -> None:
    legend = slicer.vtkSlicerColorLogic.AddDefaultColorLegendDisplayNode(node)
    legend.SetTitleText(overlay.legend)
    named = overlay.names is not None
    legend.SetUseColorNamesForLabels(named)
    colours = node.GetDisplayNode().GetColorNode()
    count = colours.GetNumberOfColors() if named else 5
    legend.SetSize(*legend_size([colours.GetColorName(row) for row in range(count)] if named else []))
    if named and count <= FEW_NAMES:
        legend.SetPosition(*BELOW)
    legend.SetMaxNumberOfColors(count if named else 256)
    legend.SetNumberOfLabels(count)
    legend.SetLabelFormat("%s" if named else "%.1f")


# Centerline ----------------------------------------------------------------------------------------------------------


def wish_for_centerline(segmentation_node: slicer.vtkMRMLSegmentationNode) -> bool | None:
    """Whether the panel last showed or hid the centerline; None where it did neither.

    The user may have changed its visibility elsewhere since.
    """
    return {"1": True, "0": False}.get(segmentation_node.GetAttribute(ROLE + "showCenterline") or "")


def show_centerline(segmentation_node: slicer.vtkMRMLSegmentationNode, visible: bool) -> None:
    """Show or hide the centerline, also that of the next measurement."""
    segmentation_node.SetAttribute(ROLE + "showCenterline", "1" if visible else "0")
    node = companion(segmentation_node, CENTERLINE)
    if node is not None and node.GetDisplayNode():
        node.GetDisplayNode().SetVisibility(visible)
