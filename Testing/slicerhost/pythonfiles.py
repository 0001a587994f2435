"""Slicer's Python files beside slicer.util: stand-ins of this package, or Slicer's own from a folder.

The environment variable SLICER_PYTHON names a folder such as Slicer's Base/Python, in which `slicer/i18n.py` lies;
then ScriptedLoadableModule.py, parameterNodeWrapper, i18n and packaging are the real ones.
"""

import os
import sys
import types

import slicer

from slicerhost import modulebase, parameternode

REAL_FOLDER = os.environ.get("SLICER_PYTHON", "")
STAND_INS = {
    "i18n": ("tr", "translate"),
    "packaging": ("load_requirements", "pip_check", "pip_ensure", "pip_install"),
    "ScriptedLoadableModule": (
        "ScriptedLoadableModule",
        "ScriptedLoadableModuleWidget",
        "ScriptedLoadableModuleLogic",
        "ScriptedLoadableModuleTest",
    ),
}
PARAMETERS = ("parameterNodeWrapper", "Default", "Validator", "WithinRange", "Minimum", "Maximum", "Choice")


def make_importable() -> None:
    """Make them importable as slicer.<name>, also before the host has started; once is enough."""
    if REAL_FOLDER:
        folder = os.path.join(REAL_FOLDER, "slicer")
        if not os.path.isfile(os.path.join(folder, "ScriptedLoadableModule.py")):
            raise FileNotFoundError(
                f"SLICER_PYTHON is {REAL_FOLDER}, where slicer/ScriptedLoadableModule.py is missing"
            )
        if folder not in slicer.__path__:
            slicer.__path__.append(folder)
        return
    for name, items in STAND_INS.items():
        module = make_module(f"slicer.{name}", {item: getattr(modulebase, item) for item in items})
        setattr(slicer, name, module)
    items = {item: getattr(parameternode, item) for item in PARAMETERS}
    slicer.parameterNodeWrapper = make_module("slicer.parameterNodeWrapper", items)


def install_sample_data() -> None:
    """Make SampleData importable, with no samples yet; the host has started."""
    slicer.modules.sampleDataSources, slicer.modules.sampleDataSourceCategories = {}, {}
    make_module("SampleData", {"SampleDataLogic": modulebase.SampleDataLogic})


def make_module(name: str, items: dict[str, object]) -> types.ModuleType:
    """Register a module of these items."""
    module = types.ModuleType(name)
    vars(module).update(items)
    sys.modules[name] = module
    return module
