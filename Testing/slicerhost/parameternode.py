"""Stand-in of slicer.parameterNodeWrapper: typed choices in a node of the scene, tied to widgets by name.

Values are kept in the node under the same names and in the same form as Slicer's, for the types that `SERIALIZERS` and
nodes cover; another type raises when the class is decorated. Validators and connections refuse what Slicer's refuse.
"""

import enum
import pathlib
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import slicer
import vtk
from PySide6 import QtWidgets

PARAMETER_NAME = "SlicerParameterName"


# What stands in Annotated[...] ----------------------------------------------------------------------------------------


@dataclass
class Default:
    """The value of a parameter that was never set."""

    value: Any


class Validator:
    """Refuses values."""

    def validate(self, value: Any) -> None:
        """Raise ValueError for a value that must not be."""
        raise TypeError("Validator is only a base")


@dataclass
class WithinRange(Validator):
    """From minimum to maximum, both included."""

    minimum: float
    maximum: float

    def validate(self, value: Any) -> None:
        """Raise ValueError outside the range."""
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"Value must be within range [{self.minimum}, {self.maximum}], is {value}")


@dataclass
class Minimum(Validator):
    """Not less than this."""

    minimum: float

    def validate(self, value: Any) -> None:
        """Raise ValueError below."""
        if value < self.minimum:
            raise ValueError(f"Value must be at least {self.minimum}, is {value}")


@dataclass
class Maximum(Validator):
    """Not more than this."""

    maximum: float

    def validate(self, value: Any) -> None:
        """Raise ValueError above."""
        if value > self.maximum:
            raise ValueError(f"Value must be at most {self.maximum}, is {value}")


@dataclass
class Choice(Validator):
    """One of these."""

    choices: list

    def validate(self, value: Any) -> None:
        """Raise ValueError for another value."""
        if value not in self.choices:
            raise ValueError(f"Value is {value}, but must be in one of the following: {self.choices}")


# Parameters -----------------------------------------------------------------------------------------------------------


class Parameter:
    """One member of the class: its type, default and validators, and its form in the node."""

    def __init__(self, name: str, annotated: Any, default: Any) -> None:
        self.name, self.annotated = name, annotated
        self.kind, *extras = typing.get_args(typing.Annotated[annotated, None])[:-1]
        if typing.get_origin(self.kind) is not None or not isinstance(self.kind, type):
            raise TypeError(f"the tests' host cannot keep {name} of type {self.kind}")
        self.is_node = issubclass(self.kind, slicer.vtkMRMLNode)
        if not self.is_node and self.kind not in TO_TEXT and not issubclass(self.kind, enum.Enum):
            raise TypeError(f"the tests' host cannot keep {name} of type {self.kind}")
        self.validators = [item for item in extras if isinstance(item, Validator)]
        given = [item.value for item in extras if isinstance(item, Default)]
        self.default = default if default is not NOTHING else given[0] if given else self._first_value()

    def _first_value(self) -> Any:
        if self.is_node:
            return None
        return next(iter(self.kind)) if issubclass(self.kind, enum.Enum) else self.kind()

    def validator(self, kind: type) -> Validator | None:
        """The validator of a class, if there is one."""
        return next((item for item in self.validators if isinstance(item, kind)), None)

    def write(self, node: slicer.vtkMRMLScriptedModuleNode, value: Any) -> None:
        """Check and keep a value."""
        accepted = (int, float) if self.kind is float else self.kind
        if value is None and not self.is_node:
            raise ValueError(f"{self.name} must not be None")
        if isinstance(value, bool) and self.kind in (int, float):
            raise ValueError(f"{self.name} takes no {value}: it could not be read back")
        if value is not None and not isinstance(value, accepted):
            raise TypeError(f"{self.name} must be of type {self.kind}, is {type(value)} {value!r}")
        for validator in self.validators:
            validator.validate(value)
        with slicer.util.NodeModify(node):
            if self.is_node:
                node.SetParameter(self.name, "")
                node.SetNodeReferenceID(self.name, value.GetID() if value is not None else None)
            else:
                text = value.name if isinstance(value, enum.Enum) else TO_TEXT[self.kind](value)
                node.SetParameter(self.name, text)

    def read(self, node: slicer.vtkMRMLScriptedModuleNode) -> Any:
        """The kept value."""
        if self.is_node:
            return node.GetNodeReference(self.name)
        text = node.GetParameter(self.name)
        if issubclass(self.kind, enum.Enum):
            return self.kind[text]
        return text == "True" if self.kind is bool else self.kind(text)


NOTHING = object()
TO_TEXT = {int: str, float: str, str: str, pathlib.Path: str, bool: lambda value: "True" if value else "False"}


# Widgets --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Connector:
    """How a widget shows a parameter: the signal of its change, reading and writing."""

    signal: str
    read: Callable[[Any], Any]
    write: Callable[[Any, Any], None]


def _attribute(signal: str, name: str) -> Connector:
    return Connector(signal, lambda widget: getattr(widget, name), lambda widget, value: setattr(widget, name, value))


def _set_range(widget: Any, parameter: Parameter, must_have: bool) -> None:
    low, high = parameter.validator(Minimum), parameter.validator(Maximum)
    both = parameter.validator(WithinRange)
    minimum = both.minimum if both else low.minimum if low else None
    maximum = both.maximum if both else high.maximum if high else None
    if must_have and (minimum is None or maximum is None):
        raise RuntimeError(f"{parameter.name} needs a range to be shown by {type(widget).__name__}")
    integer = isinstance(widget, (QtWidgets.QSpinBox, QtWidgets.QSlider))
    lowest, highest = (-(2**31), 2**31 - 1) if integer else (float("-inf"), float("inf"))
    widget.minimum = lowest if minimum is None else minimum
    widget.maximum = highest if maximum is None else maximum


def _combo(widget: QtWidgets.QComboBox, parameter: Parameter) -> Connector:
    if issubclass(parameter.kind, enum.Enum):
        values = list(parameter.kind)
        label = getattr(parameter.kind, "label", lambda item: item.name)
        texts = [label(item) for item in values]
    elif parameter.validator(Choice) is None:
        raise RuntimeError(f"{parameter.name} needs a Choice to be shown by a combo box")
    else:
        values = parameter.validator(Choice).choices
        texts = [str(value) for value in values]
    widget.clear()
    widget.addItems(texts)

    def write(box: QtWidgets.QComboBox, value: Any) -> None:
        box.currentIndex = values.index(value)

    return Connector("currentIndexChanged", lambda box: values[box.currentIndex], write)


def connector_of(widget: Any, parameter: Parameter) -> Connector:
    """How this widget shows this parameter; RuntimeError for a pair that Slicer does not connect."""
    import ctk

    kind, shown = parameter.kind, type(widget)
    if parameter.is_node and shown is slicer.qMRMLNodeComboBox:
        widget.nodeTypes = [kind.__name__]
        return Connector(
            "currentNodeChanged", lambda box: box.currentNode(), lambda box, node: box.setCurrentNode(node)
        )
    if kind is bool and shown in (QtWidgets.QCheckBox, ctk.ctkCheckBox, QtWidgets.QPushButton):
        if shown is QtWidgets.QPushButton:
            widget.checkable = True
        return _attribute("toggled", "checked")
    number = _number(widget, parameter)
    if number is not None:
        return number
    if shown in (QtWidgets.QComboBox, ctk.ctkComboBox) and not parameter.is_node:
        return _combo(widget, parameter)
    if kind is str and shown is QtWidgets.QLineEdit:
        return _attribute("textChanged", "text")
    paths = {ctk.ctkPathLineEdit: ("currentPathChanged", "currentPath")}
    paths[ctk.ctkDirectoryButton] = ("directoryChanged", "directory")
    if kind is pathlib.Path and shown in paths:
        signal, name = paths[shown]
        return Connector(
            signal, lambda line: kind(getattr(line, name)), lambda line, value: setattr(line, name, str(value))
        )
    raise RuntimeError(f"Unable to create GUI connector from datatype '{kind}' to widget type '{shown}'")


def _number(widget: Any, parameter: Parameter) -> Connector | None:
    """For whole numbers and fractions; None where the widget or the type is another."""
    import ctk

    kind, shown = parameter.kind, type(widget)
    sliders = (ctk.ctkSliderWidget, slicer.qMRMLSliderWidget)
    boxes = (QtWidgets.QDoubleSpinBox, ctk.ctkDoubleSpinBox, slicer.qMRMLSpinBox)
    if kind in (int, float) and shown in sliders + boxes:
        _set_range(widget, parameter, must_have=shown in sliders)
        if kind is int:
            widget.decimals = 0
        return Connector("valueChanged", lambda box: kind(box.value), lambda box, value: setattr(box, "value", value))
    if kind is int and shown in (QtWidgets.QSlider, QtWidgets.QSpinBox):
        _set_range(widget, parameter, must_have=shown is QtWidgets.QSlider)
        return _attribute("valueChanged", "value")
    return None


class Connection:
    """A node's parameters and the widgets that show them, until `close`."""

    def __init__(self, wrapper: Any, widgets: dict[str, Any]) -> None:
        self.wrapper, self.updating = wrapper, False
        parameters = type(wrapper).allParameters
        self.parts = []
        for name, widget in widgets.items():
            connector = connector_of(widget, parameters[name])
            connector.write(widget, getattr(wrapper, name))
            slot = self._slot(name, widget, connector)
            getattr(widget, connector.signal).connect(slot)
            self.parts.append((name, widget, connector, slot))
        self.tag = wrapper.AddObserver(vtk.vtkCommand.ModifiedEvent, self._show)

    def _slot(self, name: str, widget: Any, connector: Connector) -> Callable[..., None]:
        def changed(*values: Any) -> None:
            if not self.updating:
                setattr(self.wrapper, name, connector.read(widget))

        return changed

    def _show(self, caller: Any, event: Any) -> None:
        if self.updating:
            return
        self.updating = True
        try:
            for name, widget, connector, _slot in self.parts:
                connector.write(widget, getattr(self.wrapper, name))
        finally:
            self.updating = False

    def close(self) -> None:
        """Part the widgets from the node."""
        self.wrapper.RemoveObserver(self.tag)
        for _name, widget, connector, slot in self.parts:
            getattr(widget, connector.signal).disconnect(slot)


# The decorator --------------------------------------------------------------------------------------------------------


class Wrapper:
    """What a decorated class is made of besides its parameters."""

    def __init__(self, parameterNode: slicer.vtkMRMLScriptedModuleNode) -> None:
        self.parameterNode = parameterNode
        self._connections: dict[int, Connection] = {}
        for parameter in type(self).allParameters.values():
            if not parameterNode.HasParameter(parameter.name):
                parameter.write(parameterNode, parameter.default)

    def connectGui(self, gui: Any) -> int:
        """Tie the widgets that name a parameter to it, both ways; the result is for disconnectGui."""
        widgets = gui.findChildren(QtWidgets.QWidget) if isinstance(gui, QtWidgets.QWidget) else vars(gui).values()
        named = {widget.property(PARAMETER_NAME): widget for widget in widgets if widget.property(PARAMETER_NAME)}
        return self.connectParametersToGui(named)

    def connectParametersToGui(self, widgets: dict[str, Any]) -> int:
        """The same for widgets that are given by the parameter's name."""
        for name in widgets:
            self._parameter(name)
        tag = len(self._connections)
        self._connections[tag] = Connection(self, widgets)
        return tag

    def disconnectGui(self, tag: int) -> None:
        """Part them again; an unknown tag does nothing."""
        connection = self._connections.get(tag)
        if connection is not None:
            self._connections[tag] = None
            connection.close()

    def getValue(self, name: str) -> Any:
        """A parameter by name; ValueError for an unknown one."""
        return self._parameter(name).read(self.parameterNode)

    def setValue(self, name: str, value: Any) -> None:
        """Set a parameter by name; ValueError for an unknown one."""
        self._parameter(name).write(self.parameterNode, value)

    def default(self, name: str) -> Default:
        """The value of a parameter that was never set."""
        return Default(self._parameter(name).default)

    @classmethod
    def dataType(cls, name: str) -> Any:
        """The type of a parameter as it is written in the class."""
        return cls._parameter(name).annotated

    @classmethod
    def _parameter(cls, name: str) -> Parameter:
        if name not in cls.allParameters:
            raise ValueError(f"Cannot find a param with the given name: {name}")
        return cls.allParameters[name]

    def StartModify(self) -> bool:
        """Hold the node's events back."""
        return self.parameterNode.StartModify()

    def EndModify(self, was_modifying: bool) -> int:
        """Let them go."""
        return self.parameterNode.EndModify(was_modifying)

    def AddObserver(self, event: Any, callback: Callable[..., None], priority: float = 0.0) -> int:
        """Observe the node."""
        return self.parameterNode.AddObserver(event, callback, priority)

    def RemoveObserver(self, tag: int) -> None:
        """Observe no longer."""
        self.parameterNode.RemoveObserver(tag)

    def Modified(self) -> None:
        """Tell the node's observers."""
        self.parameterNode.Modified()


def _member(name: str) -> property:
    return property(lambda self: self.getValue(name), lambda self, value: self.setValue(name, value))


def parameterNodeWrapper(classtype: type | None = None) -> type | Callable[[type], type]:
    """Make the annotated members of a class parameters in a node."""
    if classtype is None:
        return parameterNodeWrapper
    hints = typing.get_type_hints(classtype, include_extras=True)
    parameters = {name: Parameter(name, hint, getattr(classtype, name, NOTHING)) for name, hint in hints.items()}
    reserved = set(parameters) & {name for name in vars(Wrapper) if not name.startswith("_")}
    if reserved:
        raise ValueError(f"Cannot use reserved name '{min(reserved)}' in a parameterNodeWrapper")
    members = {name: item for name, item in vars(classtype).items() if name not in ("__dict__", "__weakref__")}
    members.update({name: _member(name) for name in parameters}, allParameters=parameters)
    members.pop("__init__", None)
    return type(classtype.__name__, (Wrapper,), members)
