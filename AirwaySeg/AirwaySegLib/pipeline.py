"""The whole way from a chest CT to its airway tree."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

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
from AirwaySegLib.masks.components import Box, fill_holes
from AirwaySegLib.masks.threshold import Choice, choose_airways, loose_fragments, tree_with
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
"""A section of the trachea of which a smaller share is as probable as this is filled from the CT: gas in an oesophagus
beside it makes the network doubt it."""

ABOVE_TRACHEA_MM = 6.0
"""The trachea's upper end is known to about so much; farther up nothing is searched."""


@dataclass
class Model:
    """Weights that are loaded once for many CTs, with what runs them and what repairs.

    Both are opened for the first CT, by its settings, and stay as they are: for other settings load another model.
    """

    net: WingsNet
    info: ModelInfo
    sha256: str
    backend: Backend | None = None
    repair_model: RepairModel | None = None


@dataclass
class RunReport:
    """What the report tells of one run: warnings, seconds of each stage, and what was decided."""

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
    """Where to look, on the canonical grid: box, region within the box (bool), and the trachea if there is one.

    ``seeds`` (N, 3) are voxels of the box that are surely in the trachea, ``sections`` (M, 3) its lumen up to the wall.
    """

    box: Box
    region: NDArray[np.bool_]
    trachea: Trachea | None
    seeds: NDArray[np.intp]
    sections: NDArray[np.intp]

    def lacking(self, probability: NDArray[np.uint8]) -> NDArray[np.intp]:
        """The seeds, and the trachea's sections (K, 3) of which the network (0..255) missed more than a little."""
        slices, found = self.sections[:, 0], probability[tuple(self.sections.T)] >= PROBABLE
        share = np.bincount(slices, found) / np.maximum(np.bincount(slices), 1)
        return np.concatenate([self.seeds, self.sections[share[slices] < FOUND_SECTION]])


@dataclass(frozen=True)
class Scan:
    """What the network is shown: HU (Z, Y, X) within the box, what to add to it, spacing, and where to look (bool)."""

    hu: NDArray
    offset_hu: float
    spacing_mm: Spacing
    region: NDArray[np.bool_]


@dataclass(frozen=True)
class Airways:
    """The result: ``mask`` bool and ``probability`` uint8 (0..255), both on the CT's own grid (Z, Y, X).

    ``repaired`` tells what of the mask is repair; None where nothing was looked for. ``open_lumen`` (bool) is what
    of it was not the network's, but grown through open lumens; None where nothing was grown.
    """

    mask: NDArray[np.bool_]
    probability: NDArray[np.uint8]
    repaired: Repaired | None = None
    open_lumen: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Found:
    """What the first stage found within the box: the tree (a bool `Volume`), and what it was found in."""

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

    The tree is the component that holds the trachea. Where no trachea is found the report says so, and all components
    that may be airways are kept.

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
        grown = None
        if settings.open_lumen == "yes" and around.trachea is not None:
            choice, grown = with_open_lumen(choice, hu, probability, around, ct.spacing_mm, run_report)
    progress("select", 1, 1)
    repaired = None
    if around.trachea is not None and settings.repair != "none" and choice.mask.any():
        found = Found(part_of(ct, around.box, choice.mask), hu, offset_hu, probability, choice.threshold)
        with run_report.stage("repair"):
            repaired = mend(found, repair_model_of(model, settings), run_report, progress)
    if repaired is None:
        mask = in_whole(choice.mask, around.box, ct)
    else:
        repaired = repaired.further_in(around.box)
        mask = repaired.whole_mask(ct.array.shape)
    probability = in_whole(probability, around.box, ct)
    if grown is not None:
        grown = from_canonical(in_whole(grown, around.box, ct), volume)
    return Airways(from_canonical(mask, volume), from_canonical(probability, volume), repaired, grown)


def survey(ct: Volume, run_report: RunReport, progress: Progress) -> Surroundings:
    """Find body, trachea and lungs, and from them where airways can be."""
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
    """The network's probability (0..255) on the scan's grid; the network itself may see a resampled picture."""
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
        # bfloat16 is the processor's choice only for weights that it is known to do no harm to.
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
    """Threshold, component and holes: the airways within the box."""
    choice = choose_airways(probability, spacing_mm, around.lacking(probability), settings.threshold)
    run_report.decisions["threshold"] = choice.threshold
    run_report.warnings += choice.warnings
    return replace(choice, mask=fill_holes(choice.mask))


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
    """What repairs, opened for the first CT of a batch."""
    if model.repair_model is None:
        model.repair_model = open_repair_model(settings)
    return model.repair_model


def mend(found: Found, repair_model: RepairModel, run_report: RunReport, progress: Progress) -> Repaired | None:
    """Join loose fragments to the tree; None, with a warning, where that fails: it must not cost the user the tree."""
    run_report.warnings += repair_model.warnings
    tree = found.tree.array
    try:
        whole = fill_holes(tree | loose_fragments(found.probability, tree, found.threshold))
        hu = whole_hu(found.hu, found.offset_hu)
        repaired = repair(Source(replace(found.tree, array=whole), hu, found.probability, tree), repair_model, progress)
    except Cancelled:
        raise
    except Exception as error:  # such as a GPU whose memory is full
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
