"""Compares the airways with a second segmentation: writes both masks, runs `airwayseg evaluate`, keeps the result."""

from __future__ import annotations

import json
import os

import slicer
import vtk
from slicer.i18n import tr as _

from AirwaySegSlicer.commands.jobs import Job, Steps
from AirwaySegSlicer.commands.nrrd_writer import write_pieces
from AirwaySegSlicer.scene.comparison import agreement_of, check_other, keep_comparison, other_mask, sign_comparison
from AirwaySegSlicer.scene.freshness import current_signature
from AirwaySegSlicer.scene.nodes import ijk_to_ras, shifted
from AirwaySegSlicer.scene.scans import check_same_transform, ct_for, mask_for
from AirwaySegSlicer.scene.segments import Array, nonzero_box, part_of

MARGIN = 2
"""Voxels around both masks that are written too, as far as the CT reaches."""


def comparing_job(
    airways: slicer.vtkMRMLSegmentationNode,
    other: slicer.vtkMRMLNode | None,
    chosen: slicer.vtkMRMLScalarVolumeNode | None = None,
) -> Job:
    """Compare airways with another segmentation or label map, which is the reference; the result is the airways.

    ``chosen`` is the CT of airways without a CT of their own. Raises RuntimeError, one sentence, where there is nothing
    to compare.
    """
    check_other(airways, other)
    ct = ct_for(airways, chosen)
    check_same_transform(airways, ct)  # The map is shown with the airways.
    found: list[tuple[Array, vtk.vtkMatrix4x4]] = []
    signature, name = current_signature(airways), other.GetName() if other is not None else ""

    def prepare(folder: str) -> Steps:
        """Write both masks in their common box."""
        this = mask_for(airways, ct)
        yield
        theirs = other_mask(other, ct)
        yield
        box = nonzero_box(this | theirs)
        if box is None:
            raise RuntimeError(_("The airways of {name} are empty.").format(name=airways.GetName()))
        size = ct.GetImageData().GetDimensions()
        (i0, i1), (j0, j1), (k0, k1) = (
            (max(0, low - MARGIN), min(count, high + MARGIN)) for (low, high), count in zip(box, size, strict=True)
        )
        wide = ((i0, i1), (j0, j1), (k0, k1))
        found.append(agreement_of(this, theirs, wide, ijk_to_ras(ct)))
        matrix, paths = shifted(ijk_to_ras(ct), [i0, j0, k0]), []
        for key, mask in (("airways", this), ("other", theirs)):
            paths.append(os.path.join(folder, f"{key}.nrrd"))
            yield from write_pieces(part_of(mask, wide), matrix, paths[-1])
        return ["evaluate", *paths, "--json", os.path.join(folder, "metrics.json"), "--progress", "json"]

    def collect(folder: str) -> slicer.vtkMRMLSegmentationNode:
        """Keep figures and agreement in the scene."""
        if airways.GetScene() is None:
            sentence = _("{name} was removed from the scene before it was compared.")
            raise RuntimeError(sentence.format(name=airways.GetName()))
        keep_comparison(airways, found[0], read_metrics(os.path.join(folder, "metrics.json")))
        sign_comparison(airways, name, signature)
        return airways

    return Job(prepare, collect, names={"airways.nrrd": airways.GetName(), "other.nrrd": name})


def read_metrics(path: str) -> list[tuple[str, str]]:
    """The rows (measure, value) of a comparison, rates in per cent; RuntimeError where the file cannot be read."""
    try:
        with open(path, encoding="utf-8") as stream:
            [numbers] = json.load(stream)["cases"].values()
        return [(title, shown(numbers[key], form)) for key, title, form in measures()]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RuntimeError(_("The comparison wrote no readable metrics.json.")) from error


def measures() -> list[tuple[str, str, str]]:
    """Key, title and format of what the table shows; the other segmentation is the reference."""
    return [
        ("tld", _("Tree length detected (TLD), %"), "%"),
        ("bd", _("Branches detected (BD), %"), "%"),
        ("precision", _("Precision, %"), "%"),
        ("sensitivity", _("Sensitivity, %"), "%"),
        ("dsc", _("Dice (DSC), %"), "%"),
        ("iou", _("IoU, %"), "%"),
        ("cl_dice", _("Centerline Dice (clDice), %"), "%"),
        ("leakage", _("Leakage, %"), "%"),
        ("branches", _("Branches of the other"), "d"),
        ("branches_detected", _("of these detected"), "d"),
        ("voxels_in_both", _("Voxels in both"), "d"),
        ("voxels_in_prediction_only", _("Voxels only in this"), "d"),
        ("voxels_in_reference_only", _("Voxels only in the other"), "d"),
    ]


def shown(value: float | None, form: str) -> str:
    """A number as the table shows it; a dash where it is not defined."""
    if value is None:
        return "-"
    return f"{100 * value:.1f}" if form == "%" else f"{value:,.0f}"
