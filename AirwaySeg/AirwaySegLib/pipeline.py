"""The whole segmentation: from a chest CT to its airway tree."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from AirwaySegLib.chest.preprocessing import (
    body_mask,
    calibrate,
    crop_box,
    lung_mask,
    normalise,
    resample,
    search_region,
    target_spacing,
)
from AirwaySegLib.chest.trachea import Trachea, find_trachea, whole_sections
from AirwaySegLib.errors import Cancelled, one_sentence
from AirwaySegLib.files.volume import Volume, from_canonical, part_of, to_canonical
from AirwaySegLib.masks.components import Box, fill_holes
from AirwaySegLib.masks.threshold import Choice, choose_airways, loose_fragments
from AirwaySegLib.networks.device_plan import plan
from AirwaySegLib.networks.sliding_window import Backend, PlannedBackend, Sliding, open_backend, predict
from AirwaySegLib.networks.weights import ModelInfo, load_weights
from AirwaySegLib.networks.wingsnet import WingsNet
from AirwaySegLib.progress import Progress
from AirwaySegLib.repair.repair import Repaired, RepairModel, Source, open_repair_model, repair, whole_hu
from AirwaySegLib.settings import SegmentSettings

log = logging.getLogger("airwayseg")

Spacing = tuple[float, float, float]

PROBABLE, FOUND_SECTION = 128, 0.9
"""If less than `FOUND_SECTION` of a tracheal cross-section has at least the probability `PROBABLE` (0..255), the
section is filled from the CT: gas in the oesophagus beside it makes the network miss it."""

ABOVE_TRACHEA_MM = 6.0
"""Uncertainty of the trachea's upper end; the search stops this far above it."""


@dataclass
class Model:
    """Weights that are loaded once for many CTs, with the backend that runs them and the repair model.

    Backend and repair model are opened for the first CT, by its settings, and kept: for other settings load another
    model.
    """

    net: WingsNet
    info: ModelInfo
    sha256: str
    backend: Backend | None = None
    repair_model: RepairModel | None = None


@dataclass
class RunReport:
    """The report of one run: warnings, seconds of each stage, and decisions such as the threshold."""

    warnings: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    decisions: dict[str, object] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the block under ``name``."""
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 2)


@dataclass(frozen=True)
class Surroundings:
    """Where airways are searched, on the canonical grid: box, region within it (bool), and the trachea if found.

    ``seeds`` (N, 3) are voxels of the box that are certainly in the trachea, ``sections`` (M, 3) its lumen up to the
    wall.
    """

    box: Box
    region: NDArray[np.bool_]
    trachea: Trachea | None
    seeds: NDArray[np.intp]
    sections: NDArray[np.intp]

    def lacking(self, probability: NDArray[np.uint8]) -> NDArray[np.intp]:
        """The seeds, and those sections of the trachea that the network (0..255) missed in part, as voxels (K, 3)."""
        slices, found = self.sections[:, 0], probability[tuple(self.sections.T)] >= PROBABLE
        share = np.bincount(slices, found) / np.maximum(np.bincount(slices), 1)
        return np.concatenate([self.seeds, self.sections[share[slices] < FOUND_SECTION]])


@dataclass(frozen=True)
class Scan:
    """The network's input: HU (Z, Y, X) within the box, the offset to add to it, spacing, and search region (bool)."""

    hu: NDArray
    offset_hu: float
    spacing_mm: Spacing
    region: NDArray[np.bool_]


@dataclass(frozen=True)
class Airways:
    """The result: ``mask`` bool and raw ``probability`` uint8 (0..255), both on the CT's own grid (Z, Y, X).

    ``repaired`` describes the repair; None if no repair was run.
    """

    mask: NDArray[np.bool_]
    probability: NDArray[np.uint8]
    repaired: Repaired | None = None


@dataclass(frozen=True)
class Found:
    """Result of the first stage within the box: the tree (a bool `Volume`), and the CT and probability behind it."""

    tree: Volume
    hu: NDArray
    offset_hu: float
    probability: NDArray[np.uint8]
    threshold: float


def load_model(name_or_path: str) -> Model:
    """Read weights by name or from a file."""
    return Model(*load_weights(name_or_path))


def segment(
    volume: Volume, model: Model, settings: SegmentSettings, run_report: RunReport, progress: Progress
) -> Airways:
    """Segment the airways of a CT in HU, as `volume.read_ct` gives it.

    The tree is the component that holds the trachea. If no trachea is found the report says so, and all components that
    may be airways are kept.

    Raises
    ------
    AirwaySegError
        With a sentence for the user. `Cancelled` when ``progress`` raised it.
    """
    ct = to_canonical(volume)
    progress("prepare", 0, 3)
    with run_report.stage("prepare"):
        around = survey(ct, run_report, progress)
        offset_hu = calibrate(ct.array, around.trachea)
        run_report.decisions["calibration_hu"] = round(offset_hu, 1)
    hu = ct.array[around.box]
    with run_report.stage("infer"):
        scan = Scan(hu, offset_hu, ct.spacing_mm, around.region)
        probability = airway_probability(scan, model, settings, run_report, progress)
    progress("select", 0, 1)
    with run_report.stage("select"):
        choice = select(probability, ct.spacing_mm, around, settings, run_report)
    progress("select", 1, 1)
    repaired = None
    if around.trachea is not None and settings.repair != "none" and choice.mask.any():
        found = Found(part_of(ct, around.box, choice.mask), hu, offset_hu, probability, choice.threshold)
        with run_report.stage("repair"):
            repaired = join_fragments(found, repair_model_of(model, settings), run_report, progress)
    if repaired is None:
        mask = in_whole(choice.mask, around.box, ct)
    else:
        repaired = repaired.further_in(around.box)
        mask = repaired.whole_mask(ct.array.shape)
    probability = in_whole(probability, around.box, ct)
    return Airways(from_canonical(mask, volume), from_canonical(probability, volume), repaired)


def survey(ct: Volume, run_report: RunReport, progress: Progress) -> Surroundings:
    """Find body, trachea and lungs, and from them the region in which airways are searched."""
    body = body_mask(ct.array, ct.spacing_mm)
    progress("prepare", 1, 3)
    trachea = find_trachea(ct.array, body, ct.spacing_mm)
    if trachea is None:
        run_report.warnings.append("No trachea was found in the scan: every component that may be airway is kept.")
    lungs = lung_mask(ct.array, body, ct.spacing_mm)
    progress("prepare", 2, 3)
    box, warning = crop_box(body, lungs, trachea, ct.spacing_mm)
    if warning:
        run_report.warnings.append(warning)
    region = search_region(body, lungs, trachea, ct.spacing_mm)[box].copy()
    if trachea is not None and not trachea.touches_top:  # above lies the larynx
        region[max(0, trachea.top - box[0].start + round(ABOVE_TRACHEA_MM / ct.spacing_mm[0])) :] = False
    progress("prepare", 3, 3)
    run_report.decisions["box_zyx"] = [[part.start, part.stop] for part in box]
    seeds = sections = np.empty((0, 3), np.intp)
    if trachea is not None:
        corner = [part.start for part in box]
        seeds, sections = trachea.lumen_zyx - corner, whole_sections(trachea, ct.array, ct.spacing_mm) - corner
        sections = sections[((sections >= 0) & (sections < region.shape)).all(axis=1)]
    return Surroundings(box, region, trachea, seeds, sections)


def airway_probability(
    scan: Scan, model: Model, settings: SegmentSettings, run_report: RunReport, progress: Progress
) -> NDArray[np.uint8]:
    """The network's raw probability (0..255) on the scan's grid; the network itself may run on a resampled image."""
    info, hu, spacing_mm, region = model.info, scan.hu, scan.spacing_mm, scan.region
    target_mm = target_spacing(spacing_mm, info.spacing_mm_min, info.spacing_mm_max)
    run_report.decisions["network_spacing_mm"] = [round(mm, 4) for mm in target_mm or spacing_mm]
    shape = hu.shape
    wanted = region
    if target_mm is not None:
        hu = resample(hu, spacing_mm, target_mm, order=1)
        wanted = resample(region.astype(np.uint8), spacing_mm, target_mm, order=0) > 0
    windows_hu = [info.window_hu] if info.second_window_hu is None else [info.window_hu, info.second_window_hu]
    channels = [normalise(hu, (low - scan.offset_hu, high - scan.offset_hu)) for low, high in windows_hu]
    image = channels[0][None] if len(channels) == 1 else np.stack(channels)
    backend = _opened(model, image.shape, settings, run_report)
    sliding = Sliding(info.patch_zyx, settings.overlap, settings.window_weights)
    probability = predict(image, backend, sliding, wanted, progress)
    if isinstance(backend, PlannedBackend):
        ran = backend.plan
        run_report.decisions |= {"device": ran.device, "backend": ran.backend, "precision": ran.precision}
    if target_mm is not None:
        probability = resample(probability, target_mm, spacing_mm, order=1, shape=shape)
        probability[~region] = 0
    return probability


def _opened(model: Model, shape: tuple[int, ...], settings: SegmentSettings, run_report: RunReport) -> Backend:
    """The backend, planned and opened for the first CT of a batch."""
    if model.backend is None:
        # With "auto", bfloat16 is chosen only for weights for which it was measured to make no difference.
        precision = "float32" if settings.precision == "auto" and not model.info.bfloat16 else settings.precision
        planned = plan(shape, model.info.patch_zyx, settings.device, settings.backend, precision)
        run_report.warnings += planned.warnings
        model.backend = open_backend(model.net, planned, model.info.patch_zyx, run_report.warnings.append)
    elif isinstance(model.backend, PlannedBackend):
        model.backend.warn = run_report.warnings.append
    return model.backend


def select(
    probability: NDArray[np.uint8],
    spacing_mm: Spacing,
    around: Surroundings,
    settings: SegmentSettings,
    run_report: RunReport,
) -> Choice:
    """The airways within the box: threshold, component of the trachea, holes filled."""
    choice = choose_airways(probability, spacing_mm, around.lacking(probability), settings.threshold)
    run_report.decisions["threshold"] = choice.threshold
    run_report.warnings += choice.warnings
    return replace(choice, mask=fill_holes(choice.mask))


def repair_model_of(model: Model, settings: SegmentSettings) -> RepairModel:
    """The repair model, opened for the first CT of a batch."""
    if model.repair_model is None:
        model.repair_model = open_repair_model(settings)
    return model.repair_model


def join_fragments(
    found: Found, repair_model: RepairModel, run_report: RunReport, progress: Progress
) -> Repaired | None:
    """Join loose fragments to the tree; if that fails, None and a warning: the user still gets the tree."""
    run_report.warnings += repair_model.warnings
    tree = found.tree.array
    try:
        whole = fill_holes(tree | loose_fragments(found.probability, tree, found.threshold))
        hu = whole_hu(found.hu, found.offset_hu)
        repaired = repair(Source(replace(found.tree, array=whole), hu, found.probability, tree), repair_model, progress)
    except Cancelled:
        raise
    except Exception as error:  # such as a GPU that is out of memory
        run_report.warnings.append(f"Nothing was repaired: {one_sentence(error)}")
        log.info("details", exc_info=error)
        return None
    run_report.decisions["repair"] = repaired.summary()
    return repaired


def in_whole(part: NDArray, box: Box, ct: Volume) -> NDArray:
    """An array of the CT's shape that holds ``part`` in ``box`` and 0 elsewhere."""
    whole = np.zeros(ct.array.shape, part.dtype)
    whole[box] = part
    return whole
