"""The patient's own axes, from trachea and main bronchi: patients do not always lie straight in the scanner.

Points are in LPS mm. Angles between the image's axes and the patient's are taken for at most some 30 degrees.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from AirwaySegLib.tree.shape import Shape, Vector, measure_shape

Carina = tuple[list[int], int, int]
"""The trachea's stretches, the right and the left main bronchus."""

LOWER_TRACHEA_MM = 60.0
"""The direction of the trachea is that of so much of its lower end: above, the neck bends."""

USUAL: dict[str, tuple[tuple[float, float, float], float]] = {
    "trachea": ((0.0, 0.34, -0.94), 1.0),
    "main bronchi": ((0.05, 0.30, -0.95), 0.5),
    "between the lungs": ((1.0, 0.04, 0.0), 1.0),
    "between the main bronchi's ends": ((0.97, 0.06, -0.22), 0.25),
}
"""Directions in LPS in a patient who lies straight (means of six CTs and the drawn trees), and their weights."""

STRAIGHT = 0.35
"""Weight of each of the image's axes: most patients do lie straight, and tracheas differ by 9 degrees (SD)."""


def patient_axes(shape: Shape, carina: Carina) -> NDArray[np.float64]:
    """The rotation (3, 3) that turns points in LPS into the patient's own axes (also to the left, back and head).

    It turns the directions of trachea, main bronchi and lungs as near as possible to the `USUAL` ones, in the sense of
    least weighted squares (Wahba's problem; Kabsch 1976), with the image's axes among them. It never mirrors.
    """
    seen = _directions(shape, carina)
    pairs = [(np.array(usual), seen[name], weight) for name, (usual, weight) in USUAL.items() if name in seen]
    pairs += [(axis, axis, STRAIGHT) for axis in np.eye(3)]
    covariance = sum(weight * np.outer(usual / np.linalg.norm(usual), own) for usual, own, weight in pairs)
    first, _, second = np.linalg.svd(covariance)
    return first @ np.diag([1.0, 1.0, np.linalg.det(first @ second)]) @ second


def _directions(shape: Shape, carina: Carina) -> dict[str, Vector]:
    """Unit vectors by the names in `USUAL`; a direction between points that coincide is left out."""
    trachea, right, left = carina
    points = np.concatenate([shape.branch(part).points_mm for part in trachea])
    end = points[-1]
    near = np.flatnonzero(np.linalg.norm(points - end, axis=1) <= LOWER_TRACHEA_MM)
    ends = [shape.end_mm(shape.run(main)[-1]) for main in (right, left)]
    ways = [way for way in (_unit(point - end) for point in ends) if way is not None]
    found = {
        "trachea": _unit(end - points[near[0]]) if len(near) else None,
        "main bronchi": _unit(ways[0] + ways[1]) if len(ways) == 2 else None,
        "between the lungs": _unit(shape.centre_mm[left] - shape.centre_mm[right]),
        "between the main bronchi's ends": _unit(ends[1] - ends[0]),
    }
    return {name: way for name, way in found.items() if way is not None}


def _unit(way: Vector) -> Vector | None:
    length = float(np.linalg.norm(way))
    return way / length if length > 1e-6 else None


def turned(shape: Shape, matrix: NDArray[np.float64]) -> Shape:
    """The shape of the same tree with its points turned by a rotation (3, 3)."""
    branches = [replace(branch, points_mm=branch.points_mm @ matrix.T) for branch in shape.tree.branches]
    return measure_shape(shape.tree.with_branches(branches))
