"""The columns of the tables of a cohort: name, kind, unit and meaning. Documentation and report read them from here."""

from dataclasses import dataclass

from AirwaySegLib.tree.airway_tree import LOBES
from AirwaySegLib.tree.export import TABLE_COLUMNS

DEEPEST_GENERATION = 10
"""Of the columns of `cohort.csv`; deeper ones stand in `generations.csv`."""


@dataclass(frozen=True)
class Column:
    """A column: ``kind`` is "text", "integer" or "number"; a value that does not exist is empty."""

    name: str
    kind: str
    unit: str
    meaning: str


def _lobe_column(lobe: str) -> str:
    return f"length_{lobe.replace(' ', '_')}_mm"


LOBE_COLUMNS = {lobe: _lobe_column(lobe) for lobe in LOBES}
LENGTHS = {generation: f"length_generation_{generation}_mm" for generation in range(DEEPEST_GENERATION + 1)}
AREAS = {generation: f"lumen_area_generation_{generation}_mm2" for generation in range(DEEPEST_GENERATION + 1)}

_INPUT = (
    Column("id", "text", "", "the case; its result is in cases/ID"),
    Column("patient", "text", "", "patient ID of the DICOM header, or of the list"),
    Column("date", "text", "", "date of the study (YYYYMMDD), or of the list"),
    Column("group", "text", "", "group, of the list"),
    Column("ct", "text", "", "file or folder of the CT"),
    Column("series", "text", "", "UID of the DICOM series"),
    Column("status", "text", "", "finished, failed or not run (stopped before, or another run works on it)"),
    Column("error", "text", "", "why it failed, or why its DICOM Segmentation did, when it was last tried"),
    Column("warnings", "integer", "", "number of warnings"),
    Column("warning_texts", "text", "", "the warnings, separated by ' | '"),
    Column("slices", "integer", "", "slices of the CT"),
    Column("slice_mm", "number", "mm", "distance between slices"),
    Column("pixel_mm", "number", "mm", "width of a pixel"),
)
_AIRWAYS = (
    Column("volume_ml", "number", "ml", "volume of the airway lumen"),
    Column("branches", "integer", "", "branches of the tree"),
    Column("tips", "integer", "", "branches without a child"),
    Column("deepest_generation", "integer", "", "highest Weibel generation (trachea 0)"),
    Column("length_mm", "number", "mm", "length of all branches of the tree"),
    *(Column(name, "number", "mm", f"length of the branches of generation {n}") for n, name in LENGTHS.items()),
    *(Column(name, "number", "mm", f"length of the branches of the {lobe}") for lobe, name in LOBE_COLUMNS.items()),
    *(
        Column(name, "number", "mm²", f"mean area of the lumen's cross-section in generation {n}, weighted by length")
        for n, name in AREAS.items()
    ),
)
_CHECKS = (
    Column("fragments", "integer", "", "loose fragments before the repair"),
    Column("fragments_joined", "integer", "", "fragments that the repair joined to the tree"),
    Column("repairs_proposed", "integer", "", "proposals of the repair in all"),
    Column("repairs_applied", "integer", "", "proposals that were applied"),
    Column("unconnected", "integer", "", "certain pieces of airway that were not joined"),
    Column("unconnected_ml", "number", "ml", "their volume"),
    Column("suspects", "integer", "", "points to look at"),
    Column("leaks", "integer", "", "suspects that are possible leaks"),
    Column("threshold", "number", "", "threshold of the probability that was chosen"),
    Column("weights", "text", "", "name of the weights, or the mask that was given"),
    Column("weights_sha256", "text", "", "their SHA-256, or the mask's"),
    Column("program", "text", "", "program and version"),
)
CHANGE_COLUMNS = (
    Column("change_from", "text", "", "the patient's first case, with which this later one is compared"),
    Column("change_days", "integer", "d", "days between both"),
    Column("change_branches", "integer", "", "branches that both show, on which all changes are measured"),
    Column("change_lumen_area_mm2", "number", "mm²", "change of their mean lumen area, weighted by earlier length"),
    Column("change_lumen_area_percent", "number", "%", "the same in percent of the earlier mean"),
    Column("change_length_percent", "number", "%", "change of their length in all"),
    Column("change_wall_thickness_mm", "number", "mm", "mean change of their walls, weighted by earlier length"),
    Column("change_scale", "number", "", "size of the later tree in parts of the earlier: other breath or growth"),
)
"""Of `cohort.csv`, before the seconds, if a patient has CTs of several dates whose trees match."""

SECONDS = ("read", "prepare", "infer", "select", "repair", "write", "measure")
_SECONDS = (
    Column("seconds", "number", "s", "seconds of all stages"),
    *(Column(f"seconds_{stage}", "number", "s", f"seconds of the stage '{stage}'") for stage in SECONDS),
)
CASE_COLUMNS = (*_INPUT, *_AIRWAYS, *_CHECKS, *_SECONDS)
"""Of `cohort.csv`. Those that start with "seconds" come last: all others are the same in every run."""

_BRANCH_KINDS = {"name": "text", "lobe": "text", "segment": "text", "by_hand": "text"} | dict.fromkeys(
    ("id", "parent", "component", "generation", "strahler", "points"), "integer"
)
BRANCH_COLUMNS = (
    Column("case", "text", "", "id of the case"),
    *(Column("branch" if name == "id" else name, _BRANCH_KINDS.get(name, "number"), "", "") for name in TABLE_COLUMNS),
    Column(
        "mean_lumen_area_mm2", "number", "mm²", "mean area of the lumen's cross-section, outside the parent's lumen"
    ),
)
"""Of `branches.csv`: as in a result's own, `id` is called `branch`."""

BRANCH_CHANGE_COLUMNS = (
    Column("earlier_branch", "integer", "", "number of the same branch in the case `change_from` of `cohort.csv`"),
    Column("change_length_mm", "number", "mm", "change of its length"),
    Column("change_lumen_area_mm2", "number", "mm²", "change of its mean lumen area"),
    Column("change_wall_thickness_mm", "number", "mm", "change of its wall's thickness"),
)
"""Of `branches.csv`, if `cohort.csv` has `CHANGE_COLUMNS`; empty for a branch without a partner."""

GENERATION_COLUMNS = (
    Column("case", "text", "", "id of the case"),
    Column("generation", "integer", "", "Weibel's generation (trachea 0)"),
    Column("branches", "integer", "", "number of branches"),
    Column("length_mm", "number", "mm", "length of all of them"),
    Column("mean_length_mm", "number", "mm", "mean length of a branch"),
    Column("mean_diameter_mm", "number", "mm", "mean diameter, weighted by length"),
    Column(
        "sd_diameter_mm", "number", "mm", "standard deviation of the diameters between branches, weighted by length"
    ),
    Column("volume_mm3", "number", "mm³", "volume of the branches"),
    Column("mean_lumen_area_mm2", "number", "mm²", "mean area of the lumen's cross-section, weighted by length"),
)
"""Of `generations.csv`."""


def columns_of_tables(changes: bool) -> tuple[tuple[Column, ...], tuple[Column, ...]]:
    """The columns of `cohort.csv` and `branches.csv`, with those of changes or without."""
    if not changes:
        return CASE_COLUMNS, BRANCH_COLUMNS
    return (*_INPUT, *_AIRWAYS, *_CHECKS, *CHANGE_COLUMNS, *_SECONDS), (*BRANCH_COLUMNS, *BRANCH_CHANGE_COLUMNS)
