"""Loads a .ui file with the stand-ins: `qt.QUiLoader` as slicer.util.loadUI uses it."""

import xml.etree.ElementTree as ElementTree

import ctk
import slicer
from PySide6 import QtCore, QtUiTools, QtWidgets

from slicerhost import pythonqt


def widget_class(name: str) -> type | None:
    """The stand-in of this name; None for Qt's own classes."""
    if name.startswith("ctk"):
        found = getattr(ctk, name, None)
    elif name.startswith("qMRML"):
        found = getattr(slicer, name, None)
    else:
        return None
    if found is None:
        raise RuntimeError(f"the tests' host has no stand-in for {name} yet")
    return found


class QUiLoader(QtUiTools.QUiLoader):
    """Makes stand-ins where the file names Slicer's widgets, and the connections that Qt could not make to them."""

    def __init__(self) -> None:
        super().__init__()
        self._made = []

    def createWidget(self, name: str, parent: QtWidgets.QWidget | None = None, title: str = "") -> QtWidgets.QWidget:
        """A widget by the name of its class."""
        kind = widget_class(name)
        if kind is None:
            return super().createWidget(name, parent, title)
        widget = kind(parent) if parent is not None else kind()
        widget.setObjectName(title)
        self._made.append(widget)  # alive until the whole panel holds it
        return widget

    def load(self, file: QtCore.QFile, parent: QtWidgets.QWidget | None = None) -> QtWidgets.QWidget:
        """The panel of an open file."""
        tree = ElementTree.fromstring(bytes(file.readAll().data()))
        connections = tree.find("connections")
        if connections is not None:
            tree.remove(connections)
        flags = take_flags(tree)
        buffer = QtCore.QBuffer()
        buffer.setData(ElementTree.tostring(tree))
        buffer.open(QtCore.QIODevice.ReadOnly)
        with pythonqt.loading():
            panel = super().load(buffer, parent)
        if panel is None:
            raise RuntimeError(f"the panel could not be made: {self.errorString()}")
        widgets = {panel.objectName: panel}
        widgets.update({child.objectName: child for child in panel.findChildren(QtCore.QObject) if child.objectName})
        for name, key, value in flags:
            setattr(widgets[name], key, value)
        for connection in connections if connections is not None else ():
            connect(widgets, connection)
        return panel


def take_flags(tree: ElementTree.Element) -> list[tuple[str, str, int]]:
    """Cut properties with values such as ctkPathLineEdit::Dirs, which Qt cannot read: (widget, property, value)."""
    taken = []
    for widget in tree.iter("widget"):
        kind = widget_class(widget.get("class"))
        for item in list(widget.findall("property")):
            text = item.findtext("set") or item.findtext("enum") or ""
            if kind is None or not text.startswith(("ctk", "qMRML")):
                continue
            value = 0
            for name in text.split("|"):
                value |= getattr(kind, name.split("::")[-1])
            taken.append((widget.get("name"), item.get("name"), value))
            widget.remove(item)
    return taken


def connect(widgets: dict[str, QtCore.QObject], connection: ElementTree.Element) -> None:
    """Make one connection of the file; a name that is not there raises."""
    sender, receiver = (widgets[connection.findtext(end)] for end in ("sender", "receiver"))
    slot = getattr(receiver, connection.findtext("slot").split("(")[0])
    sender.connect(connection.findtext("signal"), slot)
