"""The radius of the lumen along the path from the carina to a branch, as a plot in Slicer."""

from __future__ import annotations

from typing import Any

import slicer
import vtk
from slicer.i18n import tr as _

from AirwaySegSlicer.scene.branches import branch_points, branch_rows
from AirwaySegSlicer.scene.freshness import sign_like_tree
from AirwaySegSlicer.scene.nodes import (
    CENTERLINE,
    PLOT_CHART,
    PLOT_SERIES,
    PLOT_TABLE,
    ROLE,
    add_companion,
    companion,
    remove_companion,
    undone_on_failure,
)

DISTANCE, RADIUS = "Distance from the carina (mm)", "Radius (mm)"
LAYOUT_BEFORE = ROLE + "layoutBefore"
"""Attribute of a chart: the layout that was shown before the plot."""
PLOT_COLOR = (0.16, 0.45, 0.75)

Array = Any


def path_to(centerline_node: slicer.vtkMRMLModelNode, number: int) -> tuple[Array, Array]:
    """Distance from the carina and radius in mm, (P,) each, from the carina to the end of a branch.

    The trachea is left out unless the path ends in it. In a loose fragment distances start at its first point.
    """
    import numpy as np

    parents = {row.id: row.parent for row in branch_rows(centerline_node)}
    names = {row.id: row.name for row in branch_rows(centerline_node)}
    path = [number]
    while parents.get(path[-1]):
        path.append(parents[path[-1]])
    path = [one for one in path[::-1] if names.get(one) != "trachea" or names.get(number) == "trachea"]
    indices = [index for one in path for index in branch_points(centerline_node, one)[1]]
    distance = slicer.util.arrayFromModelPointData(centerline_node, "distance_from_carina_mm")[indices]
    radius = slicer.util.arrayFromModelPointData(centerline_node, "radius_mm")[indices]
    if np.isnan(distance).any():
        points = np.concatenate([branch_points(centerline_node, one)[0] for one in path])
        distance = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    order = np.argsort(distance, kind="stable")
    return distance[order], radius[order]


def show_radius_plot(segmentation_node: slicer.vtkMRMLSegmentationNode, number: int) -> slicer.vtkMRMLPlotChartNode:
    """Plot the radius from the carina to a branch, instead of an earlier plot, in a layout with a plot view."""
    distance, radius = path_to(companion(segmentation_node, CENTERLINE), number)
    earlier = companion(segmentation_node, PLOT_CHART)
    layout = earlier.GetAttribute(LAYOUT_BEFORE) if earlier else str(slicer.app.layoutManager().layout)
    with undone_on_failure():
        table = slicer.mrmlScene.AddNode(_table(distance, radius))
        series = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotSeriesNode")
        series.SetPlotType(series.PlotTypeScatter)
        series.SetAndObserveTableNodeID(table.GetID())
        series.SetXColumnName(DISTANCE)
        series.SetYColumnName(RADIUS)
        series.SetMarkerStyle(series.MarkerStyleNone)
        series.SetColor(*PLOT_COLOR)
        chart = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotChartNode")
        chart.SetTitle(_("From the carina to branch {number}").format(number=number))
        chart.SetXAxisTitle(_("Distance from the carina (mm)"))
        chart.SetYAxisTitle(_("Radius (mm)"))
        chart.SetLegendVisibility(False)
        chart.SetAttribute(LAYOUT_BEFORE, layout)
    add_companion(segmentation_node, PLOT_CHART, chart, "radius plot")
    add_companion(segmentation_node, PLOT_SERIES, series, "radius to the branch")
    add_companion(segmentation_node, PLOT_TABLE, table, "radii to the branch")
    chart.AddAndObservePlotSeriesNodeID(series.GetID())
    for node in (chart, series, table):
        sign_like_tree(segmentation_node, node)
    slicer.modules.plots.logic().ShowChartInLayout(chart)
    return chart


def hide_radius_plot(segmentation_node: slicer.vtkMRMLSegmentationNode) -> None:
    """Remove the plot, and show the layout from before it, unless the user has chosen another one meanwhile."""
    chart, manager = companion(segmentation_node, PLOT_CHART), slicer.app.layoutManager()
    if chart is None:
        return
    before = int(chart.GetAttribute(LAYOUT_BEFORE) or 0)
    for role in (PLOT_CHART, PLOT_SERIES, PLOT_TABLE):
        remove_companion(segmentation_node, role)
    if before and manager.plotViewCount:
        manager.setLayout(before)


def _table(distance: Array, radius: Array) -> slicer.vtkMRMLTableNode:
    table = vtk.vtkTable()
    for name, values in ((DISTANCE, distance), (RADIUS, radius)):
        column = vtk.vtkDoubleArray()
        column.SetName(name)
        for value in values:
            column.InsertNextValue(float(value))
        table.AddColumn(column)
    node = slicer.vtkMRMLTableNode()
    node.SetAndObserveTable(table)
    return node
