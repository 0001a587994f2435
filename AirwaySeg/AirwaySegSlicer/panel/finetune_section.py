"""The section Fine-tune: a training folder, its cases, a run, and whether the new model is better."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

import qt
import slicer
from slicer.i18n import tr as _

from AirwaySegSlicer.commands.dependencies import ensure_dependencies
from AirwaySegSlicer.commands.export import case_name
from AirwaySegSlicer.commands.finetune import BETTER, UNKNOWN, FinetuneOptions, Outcome, training_cases
from AirwaySegSlicer.commands.jobs import Listener
from AirwaySegSlicer.commands.training_cases import TRUST, NewCase, new_case
from AirwaySegSlicer.panel.combo_boxes import chosen_key
from AirwaySegSlicer.panel.panel import TRAINING, Panel, Section, errors_shown
from AirwaySegSlicer.panel.segment_section import SegmentSection
from AirwaySegSlicer.scene.scans import ct_for, patient_of, set_patient

FOLDER_SETTING = "AirwaySeg/trainingFolder"


class FinetuneSection(Section):
    """Manages a folder of corrected cases, and fine-tunes on them."""

    def __init__(self, panel: Panel) -> None:
        super().__init__(panel)
        self._shown_patient = ("", "")
        self.ui.outcomeTable.verticalHeader().setVisible(False)
        self.ui.outcomeTable.horizontalHeader().setStretchLastSection(True)
        self.ui.trainingFolderEdit.currentPath = str(qt.QSettings().value(FOLDER_SETTING, "") or "")
        self.ui.trainingFolderEdit.connect("currentPathChanged(QString)", self.on_folder)
        self.ui.casesList.connect("itemSelectionChanged()", self.update)
        self.ui.patientEdit.connect("textChanged(QString)", self.on_patient)
        self.ui.newModelEdit.connect("textChanged(QString)", self.on_name)
        self.ui.addCaseButton.connect("clicked(bool)", self.on_add)
        self.ui.removeCaseButton.connect("clicked(bool)", self.on_remove)
        self.ui.finetuneButton.connect("clicked(bool)", self.on_finetune)
        self.ui.outcomeTable.setVisible(False)
        self.list_cases()

    def folder(self) -> str:
        """The training folder; empty where none is chosen."""
        return self.ui.trainingFolderEdit.currentPath

    def update(self) -> None:
        """Enable the buttons that can be used now, and show the patient of the case that could be added."""
        running, busy, folder = self.logic.runs.is_running(TRAINING), self.panel.is_busy(), self.folder()
        self.show_patient()
        self.ui.addCaseButton.enabled = bool(folder) and self.panel.airways() is not None and not busy
        self.ui.removeCaseButton.enabled = bool(self.ui.casesList.selectedItems()) and not busy and not running
        self.ui.finetuneButton.text = _("Stop fine-tuning") if running else _("Start fine-tuning")
        ready = self.ui.casesList.count > 0 and bool(self.ui.newModelEdit.text.strip())
        self.ui.finetuneButton.enabled = running or ready
        self.ui.finetuneProgressBar.visible = running

    def on_folder(self, path: str) -> None:
        """Save the folder in Slicer's settings, and list its cases."""
        qt.QSettings().setValue(FOLDER_SETTING, path)
        self.list_cases()
        self.update()

    def on_name(self, text: str) -> None:
        """Enable the training only with a name."""
        self.update()

    # Cases -----------------------------------------------------------------------------------------------------------

    def list_cases(self) -> None:
        """Show the folder's cases."""
        self.ui.casesList.clear()
        for case in training_cases(self.folder()):
            edits = _("corrections not known") if case.edited_voxels is None else _("{count} voxels corrected")
            text = _("{name} of patient {patient} ({edits})")
            edits = edits.format(count=case.edited_voxels)
            item = qt.QListWidgetItem(text.format(name=case.name, patient=case.patient, edits=edits))
            item.setData(qt.Qt.UserRole, case.name)
            self.ui.casesList.addItem(item)

    def ct(self) -> slicer.vtkMRMLScalarVolumeNode | None:
        """The CT of the case that could be added."""
        airways = self.panel.airways()
        try:
            return ct_for(airways, self.panel.ct()) if airways is not None else None
        except RuntimeError:
            return None  # A press of the button shows the reason.

    def show_patient(self) -> None:
        """Propose the patient of that CT; text that is being typed is kept."""
        ct = self.ct()
        shown = (ct.GetID(), patient_of(ct)) if ct else ("", "")
        if shown != self._shown_patient:
            self._shown_patient = shown
            blocked = self.ui.patientEdit.blockSignals(True)
            self.ui.patientEdit.text = shown[1]
            self.ui.patientEdit.blockSignals(blocked)
        self.ui.patientEdit.enabled = ct is not None

    def on_patient(self, text: str) -> None:
        """Save the patient with the CT."""
        ct = self.ct()
        if ct is not None:
            set_patient(ct, text)
            self._shown_patient = (ct.GetID(), patient_of(ct))

    def close_scene(self) -> None:
        """Forget the CT: a node of the next scene may have the same id."""
        self._shown_patient = ("", "")

    def on_add(self, checked: bool = False) -> None:
        """Add the chosen airways with their CT, after asking before a case is replaced."""
        with errors_shown():
            airways = self.panel.airways()
            case = new_case(airways, self.folder(), self.panel.ct())
            if case.replaces is None or slicer.util.confirmOkCancelDisplay(replace_question(case)):
                ensure_dependencies(self.panel.requirements)
                self.add(airways, case)
        self.panel.update()

    def add(self, airways: slicer.vtkMRMLSegmentationNode, case: NewCase) -> None:
        """Start to add the case; if the command doubts its label, ask whether to add it anyway."""
        done = self.after(_("Added {name}."))

        def on_finished(name: str | None, message: str) -> None:
            """Ask where the label is doubted, else show what was done."""
            if TRUST in message and not case.trusted and not self.panel.closed:
                doubt = message.partition(" If ")[0]
                if slicer.util.confirmOkCancelDisplay(doubt + " " + _("Add it anyway?")):
                    with errors_shown():
                        self.add(airways, replace(case, trusted=True))
                        return
                message = ""
            done(name, message)

        self.ui.finetuneLabel.text = _("Adding {name} …").format(name=case.name)
        self.logic.startAddCase(airways, case, Listener(on_finished, on_line=self.panel.log))

    def on_remove(self, checked: bool = False) -> None:
        """Remove the chosen case, after asking."""
        with errors_shown():
            name = str(self.ui.casesList.selectedItems()[0].data(qt.Qt.UserRole))
            question = _("Remove the case {name} from the training folder?").format(name=name)
            if slicer.util.confirmOkCancelDisplay(question):
                done = _("Removed {name}.")
                self.logic.startRemoveCase(self.folder(), name, Listener(self.after(done), on_line=self.panel.log))
        self.panel.update()

    def after(self, sentence: str) -> Callable[[str | None, str], None]:
        """The callback for the end of a change of the folder: it lists the cases and shows what was done."""

        def on_finished(name: str | None, message: str) -> None:
            """List the cases, and show what was done."""
            if self.panel.closed:
                return
            self.list_cases()
            self.ui.finetuneLabel.text = sentence.format(name=name) if name else message or _("Cancelled.")
            self.panel.update()
            if message:
                slicer.util.errorDisplay(message)

        return on_finished

    # Training --------------------------------------------------------------------------------------------------------

    def on_finetune(self, checked: bool = False) -> None:
        """Start, or stop; a stopped run can be resumed."""
        if self.logic.runs.is_running(TRAINING):
            self.logic.runs.cancel(TRAINING)
            return
        with errors_shown():
            ensure_dependencies(self.panel.requirements)
            device = chosen_key(self.ui.deviceComboBox) or "auto"
            name = case_name(self.ui.newModelEdit.text.strip())
            model = self.panel.parameters.model if self.panel.parameters else "default"
            options = FinetuneOptions(os.path.abspath(self.folder()), model, name, device)
            self.ui.outcomeTable.setVisible(False)
            self.ui.finetuneProgressBar.maximum = 0
            self.ui.finetuneLabel.text = _("Starting.")
            self.logic.startFinetune(options, Listener(self.on_finished, self.show_progress, self.panel.log))
        self.update()

    def show_progress(self, stage: str, done: int, total: int) -> None:
        """Show the progress of the training."""
        shown = (self.ui.finetuneProgressBar, self.ui.finetuneLabel)
        self.panel.show_progress(TRAINING, shown, f"{training_stage(stage)}: {done} / {total}", done, total)

    def on_finished(self, outcome: Outcome | None, message: str) -> None:
        """Show the accuracy before and after, and the verdict; list a better model."""
        if self.panel.closed:
            return
        stopped = _("Stopped. Start again with the same name to continue.")
        said = " ".join(filter(None, (verdict(outcome), outcome.doubt))) if outcome else message or stopped
        self.ui.finetuneLabel.text = said
        if outcome:
            self.show_outcome(outcome)
            for section in self.panel.sections:
                if isinstance(section, SegmentSection):
                    section.probe()
        self.update()
        if message:
            slicer.util.errorDisplay(message)

    def show_outcome(self, outcome: Outcome) -> None:
        """A row for each measure of each held-out case."""
        table = self.ui.outcomeTable
        table.setRowCount(len(outcome.rows))
        for number, (what, before, after) in enumerate(outcome.rows):
            for column, text in enumerate((what, f"{before:.1f}", f"{after:.1f}")):
                table.setItem(number, column, qt.QTableWidgetItem(text))
        table.resizeColumnsToContents()
        table.setVisible(True)


def training_stage(stage: str) -> str:
    """The name of a stage of the training in the panel."""
    names = {
        "prepare": _("Preparing the cases"),
        "train": _("Training"),
        "validate": _("Validating on held-out cases"),
        "evaluate": _("Evaluating on held-out cases"),
    }
    return names.get(stage, stage)


def replace_question(case: NewCase) -> str:
    """The question whether to replace a case, with its name and patient."""
    text = _("{ct} is in the training folder already, as the case {name} of patient {old}. Replace that case?")
    old = case.replaces.patient if case.replaces else case.patient
    if old != case.patient:
        text += " " + _("Its patient becomes {patient}.")
    return text.format(ct=case.ct.GetName(), name=case.name, old=old, patient=case.patient)


def verdict(outcome: Outcome) -> str:
    """Whether the model is better, in a sentence."""
    if outcome.verdict == UNKNOWN:
        return _("Cannot be assessed: {reason}").format(reason=outcome.reason)
    if outcome.verdict == BETTER:
        return _("Better, and listed as {name}: {reason}").format(name=outcome.name, reason=outcome.reason)
    return _("Not better, and not listed: {reason}").format(reason=outcome.reason)
