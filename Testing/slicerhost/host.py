"""Starts the host once, runs its event loop, and makes errors in slots and observers fail the test."""

import atexit
import os
import subprocess
import sys
import time
import traceback
import types
from collections.abc import Callable
from importlib import import_module

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import shiboken6
import slicer
import slicer.util
from PySide6 import QtCore, QtWidgets

from slicerhost import ctkwidgets, dialogs, modulebase, mrmlwidgets, pythonfiles, pythonqt, segmenteditor
from slicerhost.application import Application, CoreModule
from slicerhost.scene import World

LIMIT_S = 900.0
"""For a condition that does not come true although something still runs; a busy computer is slow, not wrong."""

IDLE_TURNS = 5000
"""Of the event loop without a child process; what has not happened after them, ten seconds or more, does not happen."""

# Modules that a panel may send the user to, but that have no logic to ask for.
WITHOUT_LOGIC = ("Data", "DICOM", "SegmentEditor", "ExtensionsManager")


class Host:
    """The running host: its scene, what the user was shown, and what failed where no caller could see it."""

    def __init__(self) -> None:
        qt = pythonqt.install()
        for kind in dialogs.REPLACED:
            setattr(qt, kind.__name__, kind)
        ctkwidgets.install()
        mrmlwidgets.install()
        slicer.qMRMLSegmentEditorWidget = segmenteditor.qMRMLSegmentEditorWidget
        slicer.qSlicerScriptedLoadableModule = modulebase.ModuleParent
        slicer.qSlicerScriptedLoadableModuleWidget = modulebase.ModuleWidgetParent
        for name in ("modules", "moduleNames"):
            setattr(slicer, name, types.ModuleType(f"slicer.{name}"))
            sys.modules[f"slicer.{name}"] = getattr(slicer, name)
        self.world = World()
        self.conversation = dialogs.conversation
        self.app = slicer.app = Application(self.world)
        for name, logic in self.world.module_logics.items():
            self.app.moduleManager()._add(name, CoreModule(name, logic))
        for name in WITHOUT_LOGIC:
            self.app.moduleManager()._add(name, CoreModule(name, None))
        pythonfiles.install_sample_data()
        qt.QUiLoader = import_module("slicerhost.uifile").QUiLoader  # it looks into ctk, which is there only now
        self.main_window = MainWindow()
        self.panels: list = []
        self.failures: list[BaseException] = []
        self.longest_block_s = 0.0
        self.children: list[subprocess.Popen] = []
        self.single_shots: list[QtCore.QTimer] = []
        qt.QTimer.singleShot = staticmethod(self._single_shot)
        self._launch, slicer.util.launchConsoleProcess = slicer.util.launchConsoleProcess, self._launch_and_note
        self._plain_hook = sys.excepthook
        sys.excepthook = self._keep_failure
        atexit.register(self._close)

    @property
    def messages(self) -> list[tuple[str, str]]:
        """(kind, text) of what the user was shown: error, warning, information, question or file."""
        return self.conversation.messages

    @property
    def answers(self) -> list:
        """What the user answers next; an empty queue says yes to questions and Cancel to file dialogs."""
        return self.conversation.answers

    def clear(self) -> None:
        """An empty scene without panels, messages and settings, for the next test."""
        for panel in self.panels:
            panel.close()
        self.panels.clear()
        self.world.clear()
        self.app.settings().clear()
        self.app.processEvents()
        self.conversation.clear()
        self.failures.clear()
        self.children.clear()
        for timer in self.single_shots:
            shiboken6.delete(timer)
        self.single_shots.clear()
        self.longest_block_s = 0.0

    def run_unbroken(self, function: Callable[[], object]) -> None:
        """Call a function, and note in `longest_block_s` how long the window would have stood still."""
        start = time.perf_counter()
        function()
        self.longest_block_s = max(self.longest_block_s, time.perf_counter() - start)

    def pump(self, until: float | Callable[[], bool] = 0.0, limit_s: float = LIMIT_S) -> None:
        """Run the event loop for some seconds or until a condition holds.

        Raises
        ------
        TimeoutError
            If the condition does not hold after `limit_s`, or although nothing runs any more that could bring it about.
        RuntimeError
            If the user is shown an error instead.
        Exception
            What a slot or an observer raised meanwhile, unless the user was shown it.
        """
        start, shown, idle_turns = time.monotonic(), len(self.messages), 0
        while True:
            self.run_unbroken(self.app.processEvents)
            QtCore.QCoreApplication.sendPostedEvents(None, QtCore.QEvent.DeferredDelete)
            self.check()
            passed_s = time.monotonic() - start
            if until() if callable(until) else passed_s >= until:
                return
            if callable(until):
                self._refuse_to_wait(self.messages[shown:])
                idle_turns = 0 if any(child.poll() is None for child in self.children) else idle_turns + 1
                if passed_s > limit_s or idle_turns > IDLE_TURNS:
                    raise TimeoutError(f"the condition does not hold after {passed_s:.1f} s")
            time.sleep(0.002)

    def _refuse_to_wait(self, messages: list[tuple[str, str]]) -> None:
        for kind, text in messages:
            if kind == "error":
                raise RuntimeError(f"the user was shown an error instead: {text}")

    def _single_shot(
        self, msec: int, receiver: Callable[[], object] | QtCore.QObject, member: str | None = None
    ) -> None:
        """As Slicer's replacement of `QTimer.singleShot`: a timer for each call, kept, with what it calls, to the end.

        Here the end is that of the test.
        """
        timer = QtCore.QTimer(self.app.moduleManager())
        timer.setSingleShot(True)
        timer.connect("timeout()", receiver if callable(receiver) else getattr(receiver, str(member).partition("(")[0]))
        timer.start(msec)
        self.single_shots.append(timer)

    def _launch_and_note(self, *arguments: object, **options: object) -> subprocess.Popen:
        """`slicer.util.launchConsoleProcess`; whoever waits is told when the child has ended."""
        self.children.append(self._launch(*arguments, **options))
        return self.children[-1]

    def check(self) -> None:
        """Raise what a slot or an observer raised since the last call, unless the user was shown it."""
        if self.failures:
            failure = self.failures[0]
            self.failures.clear()
            raise failure

    def _close(self) -> None:
        """Take the window down while Python still runs; Qt's own end would come after it and crash."""
        self.clear()
        shiboken6.delete(self.main_window)
        shiboken6.delete(self.app)

    def _keep_failure(self, kind: type, error: BaseException, trace: types.TracebackType | None) -> None:
        if any(error is shown for shown in self.conversation.shown_errors):
            return
        traceback.print_exception(kind, error, trace)
        self.failures.append(error)


class MainWindow(QtWidgets.QMainWindow):
    """Slicer's main window as slicer.util finds it: with a status bar and a selector of modules; never shown."""

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("qSlicerMainWindow")
        self._selected = ""

    def moduleSelector(self) -> "MainWindow":
        """The selector; here the window itself."""
        return self

    def selectModule(self, name: str) -> None:
        """Remember which module the user would be brought to."""
        if slicer.app.moduleManager().module(name) is None:
            raise ValueError(f"there is no module {name}")
        self._selected = name

    selectedModule = QtCore.Property(str, lambda self: self._selected)


_host: Host | None = None


def start() -> Host:
    """The host; started when it is first asked for."""
    global _host
    if _host is None:
        _host = Host()
    return _host
