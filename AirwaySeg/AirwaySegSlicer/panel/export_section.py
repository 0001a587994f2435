"""The section Export: content, folder, one button."""

from __future__ import annotations

import os

import qt
import slicer
from slicer.i18n import tr as _

from AirwaySegSlicer.commands.dependencies import ensure_packages
from AirwaySegSlicer.commands.export import case_name
from AirwaySegSlicer.commands.jobs import Listener
from AirwaySegSlicer.panel.combo_boxes import chosen_key, fill
from AirwaySegSlicer.panel.panel import Panel, Section, errors_shown

CASE = "case"
FOLDER_SETTING = "AirwaySeg/exportFolder"


class ExportSection(Section):
    """Writes the chosen airways into a folder."""

    def __init__(self, panel: Panel) -> None:
        super().__init__(panel)
        fill(self.ui.exportComboBox, export_items(), ".nrrd")
        self.ui.exportFolderEdit.currentPath = str(qt.QSettings().value(FOLDER_SETTING, "") or "")
        self.ui.exportFolderEdit.connect("currentPathChanged(QString)", self.on_folder)
        self.ui.exportButton.connect("clicked(bool)", self.on_export)

    def update(self) -> None:
        """Enable the button when airways and a folder are chosen."""
        ready = self.panel.airways() is not None and bool(self.ui.exportFolderEdit.currentPath)
        self.ui.exportButton.enabled = ready and not self.panel.is_busy()

    def on_folder(self, path: str) -> None:
        """Save the folder in Slicer's settings."""
        qt.QSettings().setValue(FOLDER_SETTING, path)
        self.update()

    def on_export(self, checked: bool = False) -> None:
        """Write the files, after asking before any is replaced."""
        airways, folder = self.panel.airways(), self.ui.exportFolderEdit.currentPath
        if airways is None:
            return
        kind = chosen_key(self.ui.exportComboBox)
        name = case_name(airways.GetName())
        target = os.path.join(folder, name if kind == CASE else name + kind)
        with errors_shown():
            question = _("{path} exists. Replace it?").format(path=target)
            if os.path.exists(target) and not slicer.util.confirmOkCancelDisplay(question):
                return
            os.makedirs(folder, exist_ok=True)
            if kind == CASE:
                ensure_packages(self.panel.requirements)
                self.ui.exportLabel.text = _("Writing the case …")
                listener = Listener(self.on_exported, on_line=self.panel.log)
                self.logic.startExportCase(airways, target, listener, self.panel.ct())
            else:
                self.show_written(self.logic.export(airways, target, self.panel.ct())[0])
        self.panel.update()

    def on_exported(self, folder: str | None, message: str) -> None:
        """Show where the case was written, or why it was not."""
        if self.panel.closed:
            return
        if folder:
            self.show_written(folder)
        else:
            self.ui.exportLabel.text = message or _("Cancelled.")
        self.panel.update()
        if message:
            slicer.util.errorDisplay(message)

    def show_written(self, path: str) -> None:
        """Show what was written."""
        self.ui.exportLabel.text = _("Written: {path}").format(path=path)


def export_items() -> list[tuple[str, str]]:
    """(title, key) of what can be exported; the key is a file extension, or `CASE`."""
    return [
        (_("Mask (NRRD)"), ".nrrd"),
        (_("Mask (NIfTI)"), ".nii.gz"),
        (_("Surface (STL)"), ".stl"),
        (_("Centerline (VTP)"), ".vtp"),
        (_("Table of branches (CSV)"), ".csv"),
        (_("Whole case (folder)"), CASE),
    ]
