"""Stand-ins of CTK's widgets: the properties, signals and slots that modules use, on plain Qt widgets."""

import os
import sys
import types
from collections.abc import Callable
from typing import Any

from PySide6 import QtCore, QtGui, QtWidgets

from slicerhost import dialogs

HEADER_HEIGHT = 24
UNLIMITED = 2**24 - 1  # pixels: Qt's largest size


def stored(kind: type | str, default: Any, changed: Callable[[Any], None] | None = None) -> QtCore.Property:
    """A Qt property that keeps its value and, when that changes, calls `changed(widget)`."""
    name = f"_stored{len(stored.made)}"
    stored.made.append(name)

    def get(self):
        return self.__dict__.get(name, default)

    def put(self, value):
        if value == get(self) and type(value) is type(get(self)):
            return
        self.__dict__[name] = value
        if changed is not None:
            changed(self)

    return QtCore.Property(kind, get, put)


stored.made = []


def slots_of(*names: str) -> Callable[[type], type]:
    """Give a class Qt's setters of its own properties: value -> setValue."""

    def decorate(kind: type) -> type:
        for name in names:
            # Looked up when called, so that a class derived from this one may replace the property.
            def setter(self, value, name=name):
                getattr(type(self), name).fset(self, value)

            setattr(kind, f"set{name[0].upper()}{name[1:]}", setter)
        return kind

    return decorate


@slots_of("collapsed")
class ctkCollapsibleButton(QtWidgets.QAbstractButton):
    """A section with a header; collapsed, its contents are hidden."""

    contentsCollapsed = QtCore.Signal(bool)
    _signals = {"contentsCollapsed(bool)": "contentsCollapsed"}

    def __init__(self, text: str | QtWidgets.QWidget | None = None, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(text if isinstance(text, QtWidgets.QWidget) else parent)
        if isinstance(text, str):
            self.setText(text)
        self._hidden = []
        self.setCheckable(True)
        self.setChecked(True)
        self.setContentsMargins(0, HEADER_HEIGHT, 0, 0)
        self.toggled.connect(self._show_contents)

    def _set_collapsed(self, value: bool) -> None:
        self.setChecked(not value)

    collapsed = QtCore.Property(bool, lambda self: not self.isChecked(), _set_collapsed)
    flat = stored(bool, False)
    collapsedHeight = stored(int, 10)
    contentsLineWidth = stored(int, 1)

    def _show_contents(self, shown: bool) -> None:
        inside = [child for child in self.children() if isinstance(child, QtWidgets.QWidget)]
        if shown:
            for child in self._hidden:
                child.setVisible(True)
            self._hidden = []
        else:
            self._hidden = [child for child in inside if not child.isHidden()]
            for child in self._hidden:
                child.setVisible(False)
        self.setMaximumHeight(UNLIMITED if shown else HEADER_HEIGHT)
        self.updateGeometry()
        self.contentsCollapsed.emit(not shown)

    def childEvent(self, event: QtCore.QChildEvent) -> None:
        """Contents that arrive while the section is closed are hidden too."""
        super().childEvent(event)
        child = event.child()
        if event.type() == QtCore.QEvent.ChildPolished and child.isWidgetType() and not self.isChecked():
            if not child.isHidden():
                self._hidden.append(child)
                child.setVisible(False)

    def hitButton(self, position: QtCore.QPoint) -> bool:
        """Only the header is a button."""
        return position.y() < HEADER_HEIGHT

    def minimumSizeHint(self) -> QtCore.QSize:
        """Never lower than the header."""
        return super().minimumSizeHint().expandedTo(QtCore.QSize(60, HEADER_HEIGHT))

    def sizeHint(self) -> QtCore.QSize:
        """Never lower than the header."""
        return super().sizeHint().expandedTo(QtCore.QSize(60, HEADER_HEIGHT))

    def paintEvent(self, event: QtGui.QPaintEvent) -> None:
        """The header with its triangle, and a frame around open contents."""
        painter = QtWidgets.QStylePainter(self)
        option = QtWidgets.QStyleOptionButton()
        option.initFrom(self)
        option.rect = QtCore.QRect(0, 0, self.width, HEADER_HEIGHT)
        painter.drawControl(QtWidgets.QStyle.CE_PushButtonBevel, option)
        painter.drawText(option.rect.adjusted(26, 0, 0, 0), QtCore.Qt.AlignVCenter, self.text)
        arrow = QtWidgets.QStyle.PE_IndicatorArrowDown if self.isChecked() else QtWidgets.QStyle.PE_IndicatorArrowRight
        option.rect = QtCore.QRect(6, 6, 12, 12)
        painter.drawPrimitive(arrow, option)
        if self.isChecked():
            painter.setPen(self.palette.mid().color())
            painter.drawRect(0, HEADER_HEIGHT - 1, self.width - 1, self.height - HEADER_HEIGHT)


def _of_box(kind: type, name: str) -> QtCore.Property:
    """A property that is the one of the spin box inside."""
    return QtCore.Property(
        kind, lambda self: getattr(self._box, name), lambda self, value: setattr(self._box, name, value)
    )


@slots_of("value", "minimum", "maximum", "decimals", "singleStep", "suffix", "prefix", "spinBoxVisible")
class ctkSliderWidget(QtWidgets.QWidget):
    """A slider and a spin box of one number; values outside the range are clamped."""

    valueChanged = QtCore.Signal(float)
    valueIsChanging = QtCore.Signal(float)
    _signals = {"valueChanged(double)": "valueChanged", "valueIsChanging(double)": "valueIsChanging"}

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._slider = QtWidgets.QSlider(QtCore.Qt.Horizontal)
        self._slider.setRange(0, 1000)
        self._box = QtWidgets.QDoubleSpinBox()
        self._box.setRange(0, 99)
        for widget in (self._slider, self._box):
            layout.addWidget(widget)
        self._box.valueChanged.connect(self._on_box)
        self._slider.valueChanged.connect(self._on_slider)

    def _on_box(self, value: float) -> None:
        low, high = self._box.minimum, self._box.maximum
        self._slider.blockSignals(True)
        self._slider.setValue(round(1000 * (value - low) / (high - low)) if high > low else 0)
        self._slider.blockSignals(False)
        self.valueChanged.emit(value)

    def _on_slider(self, position: int) -> None:
        low, high = self._box.minimum, self._box.maximum
        self._box.setValue(low + position / 1000 * (high - low))

    value, minimum, maximum = _of_box(float, "value"), _of_box(float, "minimum"), _of_box(float, "maximum")
    singleStep, decimals = _of_box(float, "singleStep"), _of_box(int, "decimals")
    suffix, prefix = _of_box(str, "suffix"), _of_box(str, "prefix")
    pageStep, tracking = stored(float, 10.0), stored(bool, True)
    tickInterval, popupSlider = stored(float, 0.0), stored(bool, False)
    spinBoxVisible = QtCore.Property(
        bool, lambda self: not self._box.isHidden(), lambda self, value: self._box.setVisible(value)
    )

    def setRange(self, low: float, high: float) -> None:
        """Both limits."""
        self._box.setRange(low, high)


class ctkDoubleSpinBox(QtWidgets.QDoubleSpinBox):
    """A spin box of one number."""


class ctkComboBox(QtWidgets.QComboBox):
    """A combo box that shows a text when nothing is chosen."""

    defaultText = stored(str, "")
    forceDefault = stored(bool, False)


class ctkCheckBox(QtWidgets.QCheckBox):
    """A check box."""


class ctkCheckablePushButton(QtWidgets.QPushButton):
    """A push button with a check box in it."""

    checkBoxControlsButton = stored(bool, True)
    checkBoxControlsButtonToggleState = stored(bool, True)


class ctkMenuButton(QtWidgets.QPushButton):
    """A push button with a menu at its side."""


class PathWidget(QtWidgets.QWidget):
    """What the two widgets for a path share: a line edit and a button that opens a file dialog."""

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._line, self._button = QtWidgets.QLineEdit(), QtWidgets.QToolButton()
        self._button.setText("...")
        layout.addWidget(self._line)
        layout.addWidget(self._button)
        self._button.clicked.connect(lambda: self.browse())
        self._line.textChanged.connect(self._on_text)

    def _on_text(self, text: str) -> None:
        raise TypeError("PathWidget is only a base")

    def browse(self) -> str:
        """Ask for a path; Cancel changes nothing."""
        path = dialogs.conversation.path("path")
        if path:
            self._line.setText(path)
        return path


@slots_of("currentPath", "filters", "settingKey", "nameFilters", "label")
class ctkPathLineEdit(PathWidget):
    """A file or folder, typed or chosen."""

    currentPathChanged = QtCore.Signal(str)
    validInputChanged = QtCore.Signal(bool)
    _signals = {"currentPathChanged(QString)": "currentPathChanged", "validInputChanged(bool)": "validInputChanged"}
    Dirs, Files, Drives, NoSymLinks = 0x1, 0x2, 0x4, 0x8
    Readable, Writable, Executable, Hidden, System = 0x10, 0x20, 0x40, 0x100, 0x200
    NoDotAndDotDot, NoDot, NoDotDot = 0x1000, 0x2000, 0x4000

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._valid = False

    def _on_text(self, text: str) -> None:
        valid = os.path.exists(text)
        if valid != self._valid:
            self._valid = valid
            self.validInputChanged.emit(valid)
        self.currentPathChanged.emit(text)

    currentPath = QtCore.Property(str, lambda self: self._line.text, lambda self, value: self._line.setText(value))
    filters = stored(int, 0x7 | 0x10)
    label, settingKey = stored(str, ""), stored(str, "")
    nameFilters = stored("QStringList", [])
    showBrowseButton, showHistoryButton = stored(bool, True), stored(bool, True)
    minimumContentsLength = stored(int, 0)
    options = stored(int, 0)

    def addCurrentPathToHistory(self) -> None:
        """The history is a matter of the settings; here there is none."""


@slots_of("directory", "caption")
class ctkDirectoryButton(PathWidget):
    """A folder, chosen."""

    directoryChanged = QtCore.Signal(str)
    directorySelected = QtCore.Signal(str)
    _signals = {"directoryChanged(QString)": "directoryChanged", "directorySelected(QString)": "directorySelected"}

    def _on_text(self, text: str) -> None:
        self.directoryChanged.emit(text)

    directory = QtCore.Property(str, lambda self: self._line.text, lambda self, value: self._line.setText(value))
    caption, text = stored(str, ""), stored(str, "")


@slots_of("color")
class ctkColorPickerButton(QtWidgets.QPushButton):
    """A colour."""

    colorChanged = QtCore.Signal(QtGui.QColor)
    _signals = {"colorChanged(QColor)": "colorChanged"}
    color = stored(QtGui.QColor, QtGui.QColor(0, 0, 0), lambda self: self.colorChanged.emit(self.color))
    displayColorName = stored(bool, True)


def without_stand_in(name: str) -> type:
    """A class that can be named, as in `type(widget) == ctk.X`, but not made."""

    def refuse(self, *arguments):
        raise RuntimeError(f"the tests' host has no stand-in for {name} yet")

    return type(name, (QtWidgets.QWidget,), {"__init__": refuse, "__module__": __name__})


def install() -> types.ModuleType:
    """Register the module `ctk`."""
    module = types.ModuleType("ctk", "CTK as Slicer's Python sees it.")
    own = {name: item for name, item in globals().items() if name.startswith("ctk")}
    named = ("ctkDoubleSlider", "ctkRangeWidget", "ctkDoubleRangeSlider")
    vars(module).update(own, **{name: without_stand_in(name) for name in named}, ctkMessageBox=dialogs.ctkMessageBox)
    sys.modules["ctk"] = module
    return module
