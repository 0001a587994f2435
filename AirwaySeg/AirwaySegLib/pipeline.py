"""The whole segmentation: from a chest CT to its airway tree."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from torch import nn

from AirwaySegLib.chest.open_lumen import open_lumen
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
from AirwaySegLib.masks.components import Box, fill_holes, label_components
from AirwaySegLib.masks.contacts import joined_by_faces, kept_apart
from AirwaySegLib.masks.threshold import Choice, Edges, choose_airways, loose_fragments, tree_with
from AirwaySegLib.networks.architectures import architecture
from AirwaySegLib.networks.device_plan import choose_cpu_backend, plan
from AirwaySegLib.networks.search import Area, has_first_look, search, work
from AirwaySegLib.networks.sliding_window import Backend, PlannedBackend, open_backend
from AirwaySegLib.networks.speed import about, window_seconds
from AirwaySegLib.networks.weights import ModelInfo, load_weights
from AirwaySegLib.progress import Progress
from AirwaySegLib.repair.repair import Repaired, RepairModel, Source, open_repair_model, repair, whole_hu
from AirwaySegLib.settings import SegmentSettings

log = logging.getLogger("airwayseg")

Spacing = tuple[float, float, float]

PROBABLE, FOUND_SECTION = 128, 0.9
"""If less than `FOUND_SECTION` of a tracheal cross-section has at least the probability `PROBABLE` (0..255), the
section is filled from the CT: gas in the oesophagus beside it makes the network miss it."""

BELOW_TRACHEA_MM = 10.0
"""A trachea without a carina whose lower end is so near to the scan's is cut by it."""

ABOVE_TRACHEA_MM = 6.0
"""Uncertainty of the trachea's upper end; the search stops this far above it."""


ITS_TREES = "each airway that the scan's edge cuts is a tree of its own, rooted at its widest end."


@dataclass
class Model:
    """Weights that are loaded once for many CTs, with the backend that runs them and the repair model.

    Backend and repair model are opened for the first CT, by its settings, and kept: for other settings load another
    model. ``window_seconds`` is how long the backend takes for a window of 128^3 voxels.
    """

    net: nn.Module
    info: ModelInfo
    sha256: str
    backend: Backend | None = None
    repair_model: RepairModel | None = None
    window_seconds: float = 0.0


@dataclass
class RunReport:
    """The report of one run: warnings, seconds of each stage, and decisions such as the threshold.

    ``tell`` is called with a sentence for the user during the run.
    """

    warnings: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    decisions: dict[str, object] = field(default_factory=dict)
    tell: Callable[[str], None] = log.info

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
    wall. ``edges`` says which sides of the box are the scan's; None where the scan holds the carina.
    ``lungs_ml`` are the volumes right and left of the trachea's lower end; None without a trachea.
    """

    box: Box
    region: NDArray[np.bool_]
    trachea: Trachea | None
    seeds: NDArray[np.intp]
    sections: NDArray[np.intp]
    edges: Edges | None = None
    lungs_ml: tuple[float, float] | None = None

    def lacking(self, probability: NDArray[np.uint8]) -> NDArray[np.intp]:
        """The seeds, and those sections of the trachea that the network (0..255) missed in part, as voxels (K, 3)."""
        slices, found = self.sections[:, 0], probability[tuple(self.sections.T)] >= PROBABLE
        share = np.bincount(slices, found) / np.maximum(np.bincount(slices), 1)
        return np.concatenate([self.seeds, self.sections[share[slices] < FOUND_SECTION]])


@dataclass(frozen=True)
class Scan:
    """The network's input: HU (Z, Y, X) within the box, the offset to add to it, spacing, and search region (bool).

    ``certain`` (N, 3) are voxels of the trachea; empty if it was not found.
    """

    hu: NDArray
    offset_hu: float
    spacing_mm: Spacing
    region: NDArray[np.bool_]
    certain: NDArray[np.intp] = field(default_factory=lambda: np.empty((0, 3), np.intp))


@dataclass(frozen=True)
class Airways:
    """The result: ``mask`` bool and raw ``probability`` uint8 (0..255), both on the CT's own grid (Z, Y, X).

    ``repaired`` describes the repair; None if no repair was run. ``open_lumen`` (bool) marks the voxels that the growth
    through open lumens added to the network's; None if it was not run. ``lungs_ml`` are the volumes of the right and
    the left lung; None if no trachea was found.
    """

    mask: NDArray[np.bool_]
    probability: NDArray[np.uint8]
    repaired: Repaired | None = None
    open_lumen: NDArray[np.bool_] | None = None
    lungs_ml: tuple[float, float] | None = None


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

    The tree is the component that holds the trachea. If the carina is not in the scan the report says so, and every
    airway that enters the scan through its edge is a tree, too.

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
        scan = Scan(hu, offset_hu, ct.spacing_mm, around.region, around.seeds)
        probability = airway_probability(scan, model, settings, run_report, progress)
    progress("select", 0, 1)
    with run_report.stage("select"):
        choice = select(probability, ct.spacing_mm, around, settings, run_report)
        grown = None
        if settings.open_lumen == "yes" and around.trachea is not None:
            choice, grown = with_open_lumen(choice, hu, probability, around, ct.spacing_mm, run_report)
    progress("select", 1, 1)
    repaired = None
    if settings.repair != "none" and choice.mask.any():
        found = Found(part_of(ct, around.box, choice.mask), hu, offset_hu, probability, choice.threshold)
        with run_report.stage("repair"):
            repaired = join_fragments(found, repair_model_of(model, settings), run_report, progress)
    mask = choice.mask if repaired is None else repaired.whole_mask(choice.mask.shape)
    repaired = None if repaired is None else repaired.further_in(around.box)

    def whole(part: NDArray) -> NDArray:
        return from_canonical(in_whole(part, around.box, ct), volume)

    mask = whole(joined_by_faces(mask, probability))
    return Airways(mask, whole(probability), repaired, None if grown is None else whole(grown), around.lungs_ml)


def survey(ct: Volume, run_report: RunReport, progress: Progress) -> Surroundings:
    """Find body, trachea and lungs, and from them the region in which airways are searched."""
    body = body_mask(ct.array, ct.spacing_mm)
    progress("prepare", 1, 3)
    trachea = find_trachea(ct.array, body, ct.spacing_mm)
    if trachea is None:
        run_report.warnings.append(f"No trachea was found in the scan: {ITS_TREES}")
    elif _cut_above_carina(trachea, ct.spacing_mm):
        run_report.warnings.append(f"The scan ends above the carina: {ITS_TREES}")
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
    edges = None
    if trachea is None or _cut_above_carina(trachea, ct.spacing_mm):
        z, y, x = ((part.start == 0, part.stop == count) for part, count in zip(box, ct.array.shape, strict=True))
        edges = z, y, x
    return Surroundings(box, region, trachea, seeds, sections, edges, volumes_ml(lungs, trachea, ct.spacing_mm))


def volumes_ml(lungs: NDArray[np.bool_], trachea: Trachea | None, spacing_mm: Spacing) -> tuple[float, float] | None:
    """Volumes of the lungs right and left of the trachea's lower end on canonical axes; None without a trachea."""
    if trachea is None:
        return None
    lowest = trachea.centers_zyx[trachea.centers_zyx[:, 0].argmin()]
    middle = round(float(lowest[2]))
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    return float(lungs[:, :, :middle].sum()) * voxel_ml, float(lungs[:, :, middle:].sum()) * voxel_ml


def _cut_above_carina(trachea: Trachea, spacing_mm: Spacing) -> bool:
    """Whether the trachea ends where the scan ends."""
    lowest_mm = float(trachea.centers_zyx[:, 0].min()) * spacing_mm[0]
    return not trachea.has_carina and lowest_mm <= BELOW_TRACHEA_MM


def airway_probability(
    scan: Scan, model: Model, settings: SegmentSettings, run_report: RunReport, progress: Progress
) -> NDArray[np.uint8]:
    """The network's raw probability (0..255) on the scan's grid; the network itself may run on a resampled image."""
    info, hu, spacing_mm, region = model.info, scan.hu, scan.spacing_mm, scan.region
    area = area_of(scan, info)
    run_report.decisions["network_spacing_mm"] = [round(mm, 4) for mm in area.spacing_mm]
    shape, is_resampled = hu.shape, area.spacing_mm != spacing_mm
    if is_resampled:
        hu = resample(hu, spacing_mm, area.spacing_mm, order=1)
    windows_hu = [info.window_hu] if info.second_window_hu is None else [info.window_hu, info.second_window_hu]
    channels = [normalise(hu, (low - scan.offset_hu, high - scan.offset_hu)) for low, high in windows_hu]
    image = channels[0][None] if len(channels) == 1 else np.stack(channels)
    if settings.first_look == "yes" and not has_first_look(info, settings, area):
        why = "the trachea was not found" if info.any_window() else "these weights take windows of one size only"
        run_report.warnings.append(f"There was no first look: {why}.")
    backend = opened(model, image.shape, settings, run_report)
    _tell_expected(model, area, settings, run_report)
    probability, ran = search(image, backend, area, info, settings, progress)
    run_report.decisions |= ran
    if isinstance(backend, PlannedBackend):
        how = backend.plan
        run_report.decisions |= {"device": how.device, "backend": how.backend, "precision": how.precision}
    if is_resampled:
        probability = resample(probability, area.spacing_mm, spacing_mm, order=1, shape=shape)
        probability[~region] = 0
    return probability


def area_of(scan: Scan, info: ModelInfo) -> Area:
    """Where the network searches, on its own grid, which has the outer corner of the scan's."""
    target_mm = target_spacing(scan.spacing_mm, info.spacing_mm_min, info.spacing_mm_max)
    if target_mm is None:
        return Area(scan.region, scan.certain, scan.spacing_mm)
    region = resample(scan.region.astype(np.uint8), scan.spacing_mm, target_mm, order=0) > 0
    factors = np.asarray(scan.spacing_mm) / np.asarray(target_mm)
    return Area(region, ((scan.certain + 0.5) * factors).astype(np.intp), target_mm)


def _tell_expected(model: Model, area: Area, settings: SegmentSettings, run_report: RunReport) -> None:
    """Say how long the network will take on this computer; not of a backend that was given, whose speed is unknown."""
    if not model.window_seconds:
        return
    count, windows = work(model.info, settings, area)
    seconds = windows * model.window_seconds
    run_report.decisions["network_seconds_expected"] = round(seconds, 1)
    run_report.tell(f"The network runs up to {count} windows: {about(seconds)} on this computer, or less.")


def opened(model: Model, shape: tuple[int, ...], settings: SegmentSettings, run_report: RunReport) -> Backend:
    """The backend, planned and opened for the first CT of a batch."""
    if model.backend is None:
        # With "auto", bfloat16 is chosen only for weights for which it was measured to make no difference.
        precision = "float32" if settings.precision == "auto" and not model.info.bfloat16 else settings.precision
        network, backend = model.info.architecture, settings.backend
        if not architecture(network).openvino:
            backend = choose_cpu_backend(backend, network)
        planned = plan(shape, model.info.patch_zyx, settings.device, backend, precision)
        run_report.warnings += planned.warnings
        model.backend = open_backend(model.net, model.info, planned, run_report.warnings.append)
        model.window_seconds = window_seconds(model.backend, model.info)
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
    """The airways within the box: threshold, component of the trachea, holes filled, touching airways kept apart."""
    choice = choose_airways(probability, spacing_mm, around.lacking(probability), settings.threshold, around.edges)
    run_report.decisions["threshold"] = choice.threshold
    run_report.warnings += choice.warnings
    mask = kept_apart(fill_holes(choice.mask), probability)
    if around.edges is not None:
        run_report.decisions["trees"] = int(label_components(mask).max())
    return replace(choice, mask=mask)


def with_open_lumen(
    choice: Choice,
    hu: NDArray,
    probability: NDArray[np.uint8],
    around: Surroundings,
    spacing_mm: Spacing,
    run_report: RunReport,
) -> tuple[Choice, NDArray[np.bool_]]:
    """The airways with the open lumens that they lack and the fragments that these reach; and those lumens (bool)."""
    lumen = open_lumen(hu, around.region, around.sections, spacing_mm)
    grown = lumen.beyond(choice.mask, spacing_mm)
    whole, fragments = tree_with(grown, choice, probability)
    grown &= whole & (probability < choice.threshold * 255)
    run_report.decisions["open_lumen"] = {
        "voxels_added": int(grown.sum()),
        "millilitres_added": round(float(grown.sum()) * float(np.prod(spacing_mm)) / 1000, 3),
        "length_mm_added": round(lumen.length_in_mm(grown), 1),
        "fragments_reached": fragments,
        "voxels_of_fragments": int((whole & ~choice.mask & ~grown).sum()),
    }
    return replace(choice, mask=fill_holes(whole)), grown


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
