"""The sections of the panel, in the order of their tabs."""

from AirwaySegSlicer.panel.add_cut_section import AddCutSection
from AirwaySegSlicer.panel.compare_section import CompareSection
from AirwaySegSlicer.panel.correct_section import CorrectSection
from AirwaySegSlicer.panel.export_section import ExportSection
from AirwaySegSlicer.panel.finetune_section import FinetuneSection
from AirwaySegSlicer.panel.frame_section import FrameSection
from AirwaySegSlicer.panel.install_section import InstallSection
from AirwaySegSlicer.panel.overlay_section import OverlaySection
from AirwaySegSlicer.panel.panel import Panel, Section
from AirwaySegSlicer.panel.result_section import ResultSection
from AirwaySegSlicer.panel.review_section import ReviewSection
from AirwaySegSlicer.panel.segment_section import SegmentSection


def make_sections(panel: Panel) -> list[Section]:
    """One of each kind."""
    kinds = (
        FrameSection,
        SegmentSection,
        ReviewSection,
        AddCutSection,
        ResultSection,
        CompareSection,
        OverlaySection,
        CorrectSection,
        ExportSection,
        FinetuneSection,
        InstallSection,
    )
    return [kind(panel) for kind in kinds]
