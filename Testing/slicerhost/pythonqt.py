"""Gives PySide6 the habits of PythonQt, in which Slicer's modules are written, and makes the module `qt` of it.

Qt properties are attributes without parentheses, `name` is objectName, dynamic properties are attributes too, signals
connect by their C++ signature, and an attribute that does not exist is an error when read and when written.
"""

import ctypes
import functools
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import shiboken6
from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets

QObject = QtCore.QObject
_loading = []
_plain_get = QObject.__getattribute__
_plain_connect, _plain_disconnect = QObject.connect, QObject.disconnect


def install() -> types.ModuleType:
    """Change PySide6's classes, once, and register the module `qt`."""
    if "qt" in sys.modules:
        return sys.modules["qt"]
    _hold_singletons()
    module = types.ModuleType("qt", "Qt as Slicer's Python sees it.")
    for source in (QtCore, QtGui, QtWidgets, QtUiTools):
        # PySide6 makes its classes when they are asked for, so that vars() does not list them.
        vars(module).update({name: getattr(source, name) for name in dir(source) if not name.startswith("_")})
    for kind in {item for item in vars(module).values() if isinstance(item, type) and issubclass(item, QObject)}:
        if kind is QObject or "__setattr__" in vars(kind):
            kind.__setattr__ = _set
    QObject.__getattribute__ = _get
    sys.modules["qt"] = module
    return module


def _hold_singletons() -> None:
    """Keep None, True and False alive: PySide6 6.12 takes a reference to them with every call that returns them.

    Python 3.11 aborts when none is left; from Python 3.12 on they are immortal.
    """
    if sys.version_info < (3, 12):
        for item in (None, True, False):
            ctypes.c_ssize_t.from_address(id(item)).value += 1 << 40


@contextmanager
def loading() -> Iterator[None]:
    """While PySide6 loads a panel."""
    _loading.append(True)
    try:
        yield
    finally:
        _loading.pop()


def from_cpp(kind: type) -> bool:
    """Whether a class is one of C++ in Slicer: PySide6's and the stand-ins of this package."""
    return kind.__module__.startswith(("PySide6", "slicerhost"))


@functools.cache
def _property_of(kind: type, name: str) -> QtCore.QMetaProperty | None:
    """The Qt property that an attribute means; None for methods, signals and what Python classes define."""
    for base in kind.__mro__:
        if not base.__module__.startswith("PySide6") and name in vars(base):
            return None
    meta = kind.staticMetaObject
    if name == "name" and meta.indexOfProperty(name) < 0:
        name = "objectName"
    index = meta.indexOfProperty(name)
    return meta.property(index) if index >= 0 else None


def _get(self: QObject, name: str) -> Any:
    if name.startswith("_"):
        return _plain_get(self, name)
    kind = type(self)
    found = _property_of(kind, name)
    if found is not None:
        getter = _method(self, found.name())
        return QObject.property(self, found.name()) if getter is None else getter()
    if name in ADDED and not any(name in vars(base) for base in kind.__mro__ if not _is_pyside(base)):
        return functools.partial(ADDED[name], self)
    try:
        return _plain_get(self, name)
    except AttributeError:
        if name.encode() in [bytes(item) for item in QObject.dynamicPropertyNames(self)]:
            return QObject.property(self, name)
        raise


def _method(self: QObject, name: str) -> Callable[..., Any] | None:
    try:
        return _plain_get(self, name)
    except AttributeError:
        return None


def _is_pyside(kind: type) -> bool:
    return kind.__module__.startswith("PySide6")


def _set(self: QObject, name: str, value: Any) -> None:
    if isinstance(value, QtCore.SignalInstance):
        self.__dict__[name] = value  # PySide6 keeps a signal that was asked for.
        return
    kind = type(self)
    found = _property_of(kind, name)
    if found is not None:
        _set_property(self, kind, found, value)
    elif _is_python_property(kind, name):
        getattr(kind, name).fset(self, value)
    elif name.startswith("_") or not from_cpp(kind):
        self.__dict__[name] = value
    elif name.encode() in [bytes(item) for item in QObject.dynamicPropertyNames(self)]:
        QObject.setProperty(self, name, value)
    elif _loading:
        return  # PySide6 makes the children of a loaded panel its attributes; PythonQt does not.
    elif hasattr(kind, name):
        raise AttributeError(f"{name} of {kind.__name__} is a method or signal and cannot be overwritten")
    else:
        raise AttributeError(f"{kind.__name__} has no attribute {name}, and a Qt object takes no new ones")


def _is_python_property(kind: type, name: str) -> bool:
    return isinstance(getattr(kind, name, None), (property, QtCore.Property))


def _set_property(self: QObject, kind: type, found: QtCore.QMetaProperty, value: Any) -> None:
    name = found.name()
    if not found.isWritable():
        raise AttributeError(f"the property {name} of {kind.__name__} is read-only")
    if type(value).__module__ == "numpy" and not isinstance(value, (float, int)):
        raise TypeError(f"the property {name} of {kind.__name__} takes no {type(value).__name__} of numpy")
    setter = _method(self, f"set{name[0].upper()}{name[1:]}")
    if setter is not None:
        setter(value)
    elif not QObject.setProperty(self, name, value):
        raise TypeError(f"the property {name} of {kind.__name__} does not take {value!r}")


# What PythonQt adds to every object -----------------------------------------------------------------------------------


def declared_signals(kind: type) -> dict[str, str]:
    """C++ signature -> attribute, of the signals that a stand-in declares in Python."""
    declared = {}
    for base in reversed(kind.__mro__):
        declared.update(vars(base).get("_signals", {}))
    return declared


def _signal(self: QObject, signature: str) -> tuple[Any, bytes | None]:
    """The signal of a C++ signature: a Python signal, or PySide's code for a C++ one."""
    kind = type(self)
    normal = bytes(QtCore.QMetaObject.normalizedSignature(signature).data()).decode()
    attribute = declared_signals(kind).get(normal)
    if attribute is not None:
        return _plain_get(self, attribute), None
    if kind.staticMetaObject.indexOfSignal(normal) < 0:
        raise ValueError(f"{kind.__name__} has no signal {signature}")
    return None, QtCore.SIGNAL(normal)


def _connect(self: QObject, signature: str | QObject, slot: Callable[..., Any], *rest: Any) -> Any:
    if isinstance(signature, QObject):
        return _plain_connect(signature, slot, *rest)  # PySide6's own use of it, in QTimer.singleShot
    if not callable(slot):
        raise TypeError(f"{signature} can be connected to a function only, not to {slot!r}")
    signal, code = _signal(self, signature)
    # PythonQt keeps what is connected as long as the object lives; PySide6 lets go of the owner of a method.
    self.__dict__.setdefault("_connected", []).append((signature, slot))
    return bool(signal.connect(slot) if code is None else _plain_connect(self, code, slot))


def _disconnect(self: QObject, signature: str, slot: Callable[..., Any]) -> bool:
    signal, code = _signal(self, signature)
    if (signature, slot) in self.__dict__.get("_connected", ()):
        self.__dict__["_connected"].remove((signature, slot))
    try:
        return bool(signal.disconnect(slot) if code is None else _plain_disconnect(self, code, slot))
    except RuntimeError:
        return False  # It was not connected.


def _run(self: QtWidgets.QDialog, *arguments: Any) -> Any:
    return _plain_get(self, "exec")(*arguments)


def _class_name(self: QObject) -> str:
    return type(self).__name__


ADDED = {
    "connect": _connect,
    "disconnect": _disconnect,
    "exec_": _run,
    "className": _class_name,
    "delete": shiboken6.delete,
}
