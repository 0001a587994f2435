"""Opens a module as Slicer does and uses its panel as a person does: what cannot be seen or is disabled is refused."""

import importlib
import sys
from typing import Any

import shiboken6
import slicer
from PySide6 import QtWidgets

from slicerhost.host import Host, start
from slicerhost.modulebase import ModuleParent, ModuleWidgetParent
from slicerhost.mrmlwidgets import qMRMLNodeComboBox

PANEL_WIDTH, PANEL_HEIGHT = 400, 900


class Panel:
    """An open panel, until `close`."""

    def __init__(self, outer: ModuleWidgetParent, widget: Any) -> None:
        self.outer, self.widget = outer, widget

    def close(self) -> None:
        """The user leaves Slicer: the module is left and cleaned up, its widgets go."""
        if self.outer.isEntered:
            leave(self.widget)
        self.widget.cleanup()
        shiboken6.delete(self.outer)


def load_module(host: Host, name: str) -> ModuleParent:
    """What Slicer does with a module when it starts, once: make its first class, then tell that all are there."""
    module = host.app.moduleManager().module(name)
    if module is None:
        code = importlib.import_module(name)
        module = ModuleParent(name, code.__file__)
        host.app.moduleManager()._add(name, module)
        setattr(slicer.modules, f"{name}Instance", getattr(code, name)(module))
        for dependency in module.dependencies:
            if host.app.moduleManager().module(dependency) is None:
                raise RuntimeError(f"Slicer would not load {name}: there is no module {dependency}")
        host.app.startupCompleted.emit()
        host.check()
    return module


def open_module(host: Host, name: str = "AirwaySeg") -> Any:
    """The module's widget after setup() and enter(); its folder is on sys.path."""
    module = load_module(host, name)
    outer = ModuleWidgetParent()
    outer.resize(PANEL_WIDTH, PANEL_HEIGHT)
    widget = getattr(sys.modules[name], f"{name}Widget")(outer)
    outer._python, module._widget = widget, outer
    setattr(slicer.modules, f"{name}Widget", widget)
    widget.setup()
    host.panels.append(Panel(outer, widget))
    outer.show()
    enter(widget)
    return widget


def enter(widget: Any) -> None:
    """The user turns to the module."""
    widget.parent._entered = True
    widget.enter()
    start().pump()


def leave(widget: Any) -> None:
    """The user turns to another module."""
    widget.parent._entered = False
    widget.exit()
    start().pump()


def refuse_unusable(widget: QtWidgets.QWidget) -> None:
    """RuntimeError if a person could not use the widget now."""
    if not widget.isVisible():
        raise RuntimeError(f"{widget.objectName} cannot be seen: it is hidden or in a closed section")
    if not widget.isEnabled():
        raise RuntimeError(f"{widget.objectName} is disabled")


def click(button: QtWidgets.QAbstractButton) -> None:
    """Press a button or the header of a section; what a slot raises, unseen by the user, is raised here."""
    refuse_unusable(button)
    start().run_unbroken(button.click)
    start().pump()


def choose(widget: QtWidgets.QWidget, value: Any) -> None:
    """Choose a node in a node selector, a text or its data in a combo box, a row number in a table or list."""
    refuse_unusable(widget)
    start().run_unbroken(lambda: _choose(widget, value))
    start().pump()


def _choose(widget: QtWidgets.QWidget, value: Any) -> None:
    if isinstance(widget, qMRMLNodeComboBox):
        if value not in widget._nodes:
            raise ValueError(f"{widget.objectName} does not offer {value.GetName() if value else None}")
        widget._on_activated(widget._nodes.index(value))
    elif isinstance(widget, QtWidgets.QComboBox):
        texts = [widget.itemText(row) for row in range(widget.count)]
        row = texts.index(value) if value in texts else widget.findData(value)
        if row < 0:
            raise ValueError(f"{widget.objectName} offers {texts}, not {value}")
        widget.setCurrentIndex(row)
        widget.activated.emit(row)
    elif isinstance(widget, QtWidgets.QTableWidget):
        widget.selectRow(value)
    elif isinstance(widget, QtWidgets.QListWidget):
        widget.setCurrentRow(value)
    else:
        raise TypeError(f"nothing can be chosen in a {type(widget).__name__}")
