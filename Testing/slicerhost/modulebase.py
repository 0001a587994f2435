"""Stand-ins of what Slicer's Python gives to a scripted module: base classes, translation, packages, sample data."""

import importlib.metadata
import logging
import os
import sys
import unittest
import urllib.request
from collections.abc import Callable
from typing import ClassVar

import slicer
from packaging.requirements import Requirement
from PySide6 import QtCore, QtGui, QtWidgets


class ScriptedLoadableModule:
    """Tells Slicer the module's name, category and help; `parent` is Slicer's side of it."""

    def __init__(self, parent: "ModuleParent") -> None:
        super().__init__()
        self.parent = parent
        self.moduleName = type(self).__name__
        parent.title, parent.categories, parent.dependencies, parent.contributors = "", [], [], []
        parent.helpText = parent.acknowledgementText = ""
        icon = self.resourcePath(f"Icons/{self.moduleName}.png")
        if os.path.isfile(icon):
            parent.icon = QtGui.QIcon(icon)
        slicer.selfTests = {**getattr(slicer, "selfTests", {}), self.moduleName: self.runTest}

    def runTest(self, msec: int = 100, **options: object) -> None:
        """Run the module's own tests."""
        tests = getattr(sys.modules[type(self).__module__], f"{self.moduleName}Test")()
        tests.messageDelay = msec
        tests.runTest(**options)

    def resourcePath(self, name: str) -> str:
        """Path of a file of the module's folder Resources."""
        return os.path.join(os.path.dirname(self.parent.path), "Resources", name)

    def getDefaultModuleDocumentationLink(self, docPage: str | None = None) -> str:
        """A line of HTML for the help text."""
        address = slicer.app.moduleDocumentationUrl(docPage or self.moduleName)
        return f'<p>For more information, see the <a href="{address}">online documentation</a>.</p>'


class ScriptedLoadableModuleWidget:
    """The module's panel; `parent` is the widget around it."""

    def __init__(self, parent: "ModuleWidgetParent | None" = None) -> None:
        super().__init__()
        self.moduleName = type(self).__name__.removesuffix("Widget")
        self.developerMode = False
        self.parent = parent if parent is not None else ModuleWidgetParent()
        self.layout = self.parent.layout()
        if parent is None:
            self.setup()
            self.parent.show()

    def resourcePath(self, name: str) -> str:
        """Path of a file of the module's folder Resources."""
        return os.path.join(os.path.dirname(slicer.util.modulePath(self.moduleName)), "Resources", name)

    def setup(self) -> None:
        """Called before the panel is first shown; a module adds its widgets here."""

    def cleanup(self) -> None:
        """Called before the panel goes."""


class ScriptedLoadableModuleLogic:
    """What the module does without a panel."""

    def __init__(self, parent: object = None) -> None:
        super().__init__()
        self.moduleName = type(self).__name__.removesuffix("Logic")
        self.isSingletonParameterNode = True

    def getParameterNode(self) -> slicer.vtkMRMLScriptedModuleNode:
        """The scene's parameter node of this module, made when it is missing."""
        node = slicer.mrmlScene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
        if node is None:
            return slicer.mrmlScene.AddNode(self.createParameterNode())
        if node.GetAttribute("ModuleName") != self.moduleName:
            node.SetAttribute("ModuleName", self.moduleName)
        return node

    def createParameterNode(self) -> slicer.vtkMRMLScriptedModuleNode:
        """A new parameter node, not yet in the scene."""
        node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
        node.UnRegister(None)
        node.SetSingletonTag(self.moduleName)
        node.SetAttribute("ModuleName", self.moduleName)
        node.SetName(slicer.mrmlScene.GenerateUniqueName(self.moduleName))
        return node


class ScriptedLoadableModuleTest(unittest.TestCase):
    """The module's own tests, which Slicer runs."""

    def runTest(self) -> None:
        """Every method whose name says test, each after setUp."""
        for name in [name for name in dir(self) if "test" in name and callable(getattr(self, name))]:
            self.setUp()
            getattr(self, name)()
            self.tearDown()

    def delayDisplay(self, message: str, requestedDelay: int | None = None, msec: int | None = None) -> None:
        """Show a message for a moment; here it is only logged."""
        logging.info(message)


# Slicer's side of a module -------------------------------------------------------------------------------------------


def _kept(key: str) -> property:
    return property(lambda self: self._values.get(key), lambda self, value: self._values.__setitem__(key, value))


class ModuleParent(QtCore.QObject):
    """qSlicerScriptedLoadableModule: what Slicer keeps of a scripted module."""

    def __init__(self, name: str, path: str) -> None:
        super().__init__()
        self._values = {"name": name, "path": path, "hidden": False}
        self._widget = None

    name, path, title, icon, hidden = map(_kept, ("name", "path", "title", "icon", "hidden"))
    categories, dependencies, contributors = map(_kept, ("categories", "dependencies", "contributors"))
    helpText, acknowledgementText = map(_kept, ("helpText", "acknowledgementText"))
    index, associatedNodeTypes = map(_kept, ("index", "associatedNodeTypes"))

    def widgetRepresentation(self) -> "ModuleWidgetParent | None":
        """The panel, once it was opened."""
        return self._widget


class ModuleWidgetParent(QtWidgets.QWidget):
    """qSlicerScriptedLoadableModuleWidget: the widget around a scripted module's panel."""

    def __init__(self) -> None:
        super().__init__()
        layout = QtWidgets.QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._entered, self._python = False, None

    isEntered = QtCore.Property(bool, lambda self: self._entered)

    def self(self) -> object:
        """The Python object of the panel."""
        return self._python


# slicer.i18n ----------------------------------------------------------------------------------------------------------


def tr(text: str) -> str:
    """The text in the user's language: English."""
    if not isinstance(text, str):
        raise TypeError(f"only a text can be translated, not {text!r}")
    return text


def translate(context: str, text: str) -> str:
    """The text of another context in the user's language."""
    return tr(text)


# slicer.packaging -----------------------------------------------------------------------------------------------------


def load_requirements(path: str | os.PathLike) -> list[Requirement]:
    """Lines of a requirements file, without comments and options."""
    with open(path) as file:
        lines = [line.strip() for line in file]
    return [Requirement(line) for line in lines if line and line[0] not in "#-"]


def pip_check(requirements: str | Requirement | list) -> bool:
    """Whether everything is installed in a version that fits."""
    return not missing_packages(requirements)


def missing_packages(requirements: str | Requirement | list) -> list[Requirement]:
    """What of the requirements is not installed in a version that fits."""
    if isinstance(requirements, str):
        requirements = requirements.split()
    listed = requirements if isinstance(requirements, list) else [requirements]
    missing = []
    for item in listed:
        requirement = Requirement(item) if isinstance(item, str) else item
        try:
            fits = requirement.specifier.contains(importlib.metadata.version(requirement.name), prereleases=True)
        except importlib.metadata.PackageNotFoundError:
            fits = False
        if not fits and (requirement.marker is None or requirement.marker.evaluate()):
            missing.append(requirement)
    return missing


def pip_ensure(
    requirements: str | Requirement | list,
    constraints: str | None = None,
    prompt_install: bool = True,
    prompt_restart: bool = True,
    requester: str | None = None,
    skip_in_testing: bool = True,
    show_progress: bool = True,
) -> list[str] | None:
    """Ask, then install what is missing; refused, it raises RuntimeError as Slicer does."""
    missing = missing_packages(requirements)
    if not missing:
        return None
    question = f"{len(missing)} Python packages need to be installed. Continue?"
    if prompt_install and not slicer.util.confirmOkCancelDisplay(question, requester):
        raise RuntimeError("User declined package installation")
    return pip_install([str(item) for item in missing])


def pip_install(requirements: str | list[str]) -> None:
    """Never: a test must not install anything. Replace it in the test that wants to see it called."""
    raise RuntimeError(f"a test asked to install {requirements}")


# SampleData -----------------------------------------------------------------------------------------------------------


class SampleDataLogic:
    """Keeps what modules register; `slicer.modules.sampleDataSources[category]` lists the arguments."""

    rules: ClassVar[dict[str, Callable[[str], str]]] = {}

    @classmethod
    def registerUrlRewriteRule(cls, name: str, rewriteFunction: Callable[[str], str]) -> None:
        """Add a function from address to address, through which every address goes before it is opened."""
        cls.rules[name] = rewriteFunction

    def downloadSample(self, sampleName: str) -> slicer.vtkMRMLNode:
        """The sample's node, from the address or from an earlier download; like Slicer's without customDownloader."""
        listed = [source for sources in slicer.modules.sampleDataSources.values() for source in sources]
        [source] = [source for source in listed if source["sampleName"] == sampleName]
        folder, address = slicer.mrmlScene.GetCacheManager().GetRemoteCacheDirectory(), source["uris"]
        for rule in self.rules.values():
            address = rule(address)
        path = os.path.join(folder, source["fileNames"])
        if not os.path.exists(path):
            urllib.request.urlretrieve(address, path)
        return slicer.util.loadVolume(path, {"name": source["nodeNames"]})

    @staticmethod
    def registerCustomSampleDataCategory(category: str, title: str) -> None:
        """Name a category."""
        slicer.modules.sampleDataSourceCategories.setdefault(category, {})["title"] = title

    @staticmethod
    def registerCustomSampleDataSource(
        category: str = "Custom", sampleName: str | None = None, **source: object
    ) -> None:
        """Add a data set; an unknown argument raises TypeError."""
        known = {"uris", "fileNames", "nodeNames", "customDownloader", "thumbnailFileName", "loadFileTypes"}
        known |= {"loadFiles", "loadFileProperties", "checksums", "loadFileType"}
        if set(source) - known:
            raise TypeError(f"a sample data source has no {min(set(source) - known)}")
        sources = slicer.modules.sampleDataSources.setdefault(category, [])
        if {"sampleName": sampleName, **source} not in sources:
            sources.append({"sampleName": sampleName, **source})
