"""The sections of the panel, from top to bottom."""

from AirwaySegSlicer.correctsection import CorrectSection
from AirwaySegSlicer.exportsection import ExportSection
from AirwaySegSlicer.finetunesection import FinetuneSection
from AirwaySegSlicer.installsection import InstallSection
from AirwaySegSlicer.overlaysection import OverlaySection
from AirwaySegSlicer.panel import Panel, Section
from AirwaySegSlicer.resultsection import ResultSection
from AirwaySegSlicer.segmentsection import SegmentSection


def make_sections(panel: Panel) -> list[Section]:
    """One of each kind."""
    kinds = (
        SegmentSection,
        ResultSection,
        OverlaySection,
        CorrectSection,
        ExportSection,
        FinetuneSection,
        InstallSection,
    )
    return [kind(panel) for kind in kinds]
