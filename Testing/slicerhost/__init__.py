"""A stand-in for Slicer's program: the real MRML scene and logics of slicer-core, and a window of stand-ins on PySide6.

With it the module AirwaySeg runs in the tests: its logic on real nodes, its panel on widgets that behave like Slicer's.
What a stand-in does not know raises, so that a test cannot pass on something that Slicer would refuse.

Real: nodes, storage, logics, slice logics, layout, cameras, segmentations and their undo, slicer.util, rendering.
Stand-ins: qt (PySide6 with PythonQt's habits), ctk and qMRML widgets, the effects of the Segment Editor, dialogs (the
answers come from a queue), slicer.app, the subject hierarchy's plugins (an item for each node, no menus), and
ScriptedLoadableModule, parameterNodeWrapper, i18n and packaging, unless SLICER_PYTHON names the folder of Slicer's own.
"""

from slicerhost.driving import choose, click, enter, leave, load_module, open_module
from slicerhost.host import Host, start
from slicerhost.pythonfiles import make_importable

make_importable()

__all__ = ["Host", "choose", "click", "enter", "leave", "load_module", "open_module", "start"]
