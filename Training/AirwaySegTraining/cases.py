"""Training cases from a folder: reading them, and cutting patches around places worth looking at.

A case is a folder with ct.nrrd (HU), label.nrrd (0 background, 1 airway, 2 left out) and, if there is one, case.json.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, distance_transform_edt
from skimage.morphology import skeletonize

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.progress import Progress
from AirwaySegLib.volume import read_ct, read_on_grid, to_canonical
from AirwaySegTraining.degrade import Scanner, draw_scanner, scan

IGNORE = 2
MARGIN = 4
"""Voxels cut around a patch and dropped after blurring, so that its border is as blurred as its middle."""

THIN_VOXELS = 2.3
CENTRES = (("thin", 0.38), ("middle", 0.1), ("wide", 0.22), ("border", 0.14), ("anywhere", 0.16))
"""Share of patches around thin, medium and wide airways, the lungs' border, and anything in the scan."""


@dataclass(frozen=True)
class Case:
    """A case in memory; ``centres`` gives (N, 3) voxel positions for each kind of `CENTRES`."""

    name: str
    ct: NDArray[np.int16]
    label: NDArray[np.uint8]
    spacing_mm: tuple[float, float, float]
    clean: bool
    centres: dict[str, NDArray[np.int32]]


def find_centres(ct: NDArray[np.int16], label: NDArray[np.uint8]) -> dict[str, NDArray[np.int32]]:
    """Positions for patches: skeleton voxels by the lumen's half-width, the lungs' border, and a lattice over all."""
    centres: dict[str, NDArray[np.int32]] = {}
    airway = label == 1
    if airway.any():
        where = np.nonzero(airway)
        box = tuple(slice(max(0, int(axis.min()) - 2), int(axis.max()) + 3) for axis in where)
        half_width = distance_transform_edt(airway[box])
        skeleton = np.argwhere(skeletonize(airway[box])) + [part.start for part in box]
        width = half_width[tuple((skeleton - [part.start for part in box]).T)]
        centres["thin"] = skeleton[width < THIN_VOXELS].astype(np.int32)
        centres["middle"] = skeleton[(width >= THIN_VOXELS) & (width < 4)].astype(np.int32)
        centres["wide"] = skeleton[width >= 4].astype(np.int32)
    small = ct[::4, ::4, ::4]
    air = small < -500
    border = air & ~binary_erosion(air, border_value=1)
    centres["border"] = (np.argwhere(border)[::3] * 4).astype(np.int32)
    lattice = np.indices(tuple(max(1, n // 16) for n in ct.shape)).reshape(3, -1).T
    centres["anywhere"] = (lattice * 16 + 8).astype(np.int32)
    return {kind: places for kind, places in centres.items() if len(places)}


def read_case(folder: Path) -> Case:
    """Read one case, on canonical axes, as the CT will be shown to the network.

    Raises
    ------
    AirwaySegError
        If a file is missing or unreadable, the label does not fit the CT, or its values are not 0, 1 and 2.
    """
    try:
        ct, _ = read_ct(folder / "ct.nrrd")
        label = read_on_grid(folder / "label.nrrd", ct)
        description = folder / "case.json"
        clean = bool(json.loads(description.read_text()).get("clean", False)) if description.exists() else False
    except (AirwaySegError, OSError, ValueError, AttributeError) as error:
        raise AirwaySegError(f"Case {folder.name}: {error}") from error
    if label.array.min() < 0 or label.array.max() > IGNORE:
        raise AirwaySegError(f"Case {folder.name}: label.nrrd holds values other than 0, 1 and 2.")
    canonical, labels = to_canonical(ct), to_canonical(label).array.astype(np.uint8)
    hu = np.clip(canonical.array, -1024, 3071).astype(np.int16)
    return Case(folder.name, hu, labels, canonical.spacing_mm, clean, find_centres(hu, labels))


def read_cases(data: Path, progress: Progress) -> list[Case]:
    """All cases under ``data``/cases, in the order of their names."""
    folders = sorted(path.parent for path in (data / "cases").glob("[!.]*/ct.nrrd"))
    if not folders:
        raise AirwaySegError(f"No case found: {data} has no folder cases/<id> with ct.nrrd and label.nrrd.")
    cases = []
    for done, folder in enumerate(folders, start=1):
        cases.append(read_case(folder))
        progress("read", done, len(folders))
    return cases


def draw_centre(case: Case, rng: np.random.Generator) -> NDArray[np.int64]:
    """A random place of a random kind, by the shares of `CENTRES` among the kinds that the case has."""
    kinds = [(kind, share) for kind, share in CENTRES if kind in case.centres]
    shares = np.array([share for _, share in kinds])
    kind = kinds[rng.choice(len(kinds), p=shares / shares.sum())][0]
    places = case.centres[kind]
    return places[rng.integers(len(places))].astype(np.int64)


def cut(array: NDArray, start: NDArray[np.int64], side: int, fill: float) -> NDArray:
    """The cube of ``side`` voxels at ``start``; what lies outside the array is ``fill``."""
    out = np.full((side,) * 3, fill, array.dtype)
    low, high = np.maximum(start, 0), np.minimum(start + side, array.shape)
    if (low < high).all():
        source = tuple(slice(a, b) for a, b in zip(low, high))
        target = tuple(slice(a - s, b - s) for a, b, s in zip(low, high, start))
        out[target] = array[source]
    return out


def draw_patch(case: Case, side: int, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """A random patch: HU (side, side, side) as a random scanner shows it, and its label; mirrored at random.

    A case that is not clean has its own noise; it gets only a shift of a few HU and, half of the time, some more noise.
    """
    shift = rng.integers(-(side // 3), side // 3 + 1, size=3)
    start = draw_centre(case, rng) + shift - side // 2
    start = np.clip(start, 0, np.maximum(0, np.array(case.ct.shape) - side))
    hu = cut(case.ct, start - MARGIN, side + 2 * MARGIN, -1000)
    label = cut(case.label, start, side, 0)
    scanner = draw_scanner(rng) if case.clean else _mild_scanner(rng)
    hu = scan(hu, scanner, rng)[(slice(MARGIN, -MARGIN),) * 3]
    mirrored = tuple(slice(None, None, -1 if flip else 1) for flip in rng.random(3) < (0.25, 0.25, 0.5))
    return np.ascontiguousarray(hu[mirrored]), np.ascontiguousarray(label[mirrored])


def _mild_scanner(rng: np.random.Generator) -> Scanner:
    noise_hu = rng.uniform(3, 25) if rng.random() < 0.5 else 1.0
    blur = rng.uniform(0.4, 0.8) if rng.random() < 0.3 else 0.2
    return Scanner(blur, blur, 0.0, noise_hu, 0.6, 0.0, rng.uniform(-30, 30), rng.uniform(0.97, 1.03), -1024.0)
