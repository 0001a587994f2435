"""Lint of the panel's .ui file: Qt loads a misspelt class, property or name without a word, and so does Slicer."""

import re
import xml.etree.ElementTree as ElementTree

import pytest
import slicer
import slicerhost
from PySide6 import QtCore as qtcore
from source_tree import ROOT

PANEL = ROOT / "AirwaySeg/Resources/UI/AirwaySeg.ui"
# What Slicer's parameter nodes look for; every other property must belong to its class.
DYNAMIC = {"SlicerParameterName"}
# Of Qt Designer's files only: the widget that a label's shortcut leads to.
BUDDY = ("QLabel", "buddy")
# Of headers and tab pages: <attribute name="horizontalHeaderStretchLastSection">.
HEADER = re.compile(
    r"(horizontal|vertical)Header(Visible|StretchLastSection|DefaultSectionSize|MinimumSectionSize)|title"
)
WIDTH, HEIGHT, HEADERS = 400, 900, 120
"""Pixels; of the height Slicer's own headers take a part."""


@pytest.fixture(scope="module")
def tree():
    return ElementTree.parse(PANEL).getroot()


@pytest.fixture(scope="module")
def classes(tree) -> dict[str, type]:
    """The class of every widget and layout of the file by its name there."""
    slicerhost.start()
    from slicerhost.uifile import widget_class

    names = {item.get("class") for kind in ("widget", "layout") for item in tree.iter(kind)}
    qt = __import__("qt")
    found = {name: widget_class(name) or getattr(qt, name, None) for name in names}
    assert None not in found.values(), found
    return found


def widgets(tree) -> list:
    return list(tree.iter("widget"))


def properties(item) -> dict:
    return {part.get("name"): part for part in item.findall("property")}


def test_every_class_is_known_and_slicers_own_are_declared(tree, classes):
    declared = {item.findtext("class"): item.findtext("header") for item in tree.iter("customwidget")}
    own = {name for name in classes if name.startswith(("ctk", "qMRML"))}
    assert own == set(declared)
    assert all(header == f"{name}.h" for name, header in declared.items())


def test_every_property_belongs_to_its_class(tree, classes):
    unknown = [
        f"{item.get('name')}: {name}"
        for kind in ("widget", "layout")
        for item in tree.iter(kind)
        for name, part in properties(item).items()
        if not (part.get("stdset") == "0" and name in DYNAMIC) and not has_property(classes[item.get("class")], name)
    ]
    assert not unknown


def has_property(kind: type, name: str) -> bool:
    layout = issubclass(kind, qtcore.QObject) and kind.__name__.endswith("Layout")
    if (kind.__name__, name) == BUDDY:
        return True
    margins = {"leftMargin", "topMargin", "rightMargin", "bottomMargin", "margin"}
    return kind.staticMetaObject.indexOfProperty(name) >= 0 or (layout and name in margins)


def test_dynamic_properties_are_marked_as_such(tree):
    marked = [
        part.get("stdset") for item in widgets(tree) for part in item.findall("property") if part.get("name") in DYNAMIC
    ]
    assert set(marked) == {"0"}


def test_every_value_of_an_enumeration_exists(tree, classes):
    qt = __import__("qt")
    wrong = []
    for item in [part for part in tree.iter() if part.tag in ("enum", "set")]:
        for value in item.text.split("|"):
            owner, *_scopes, name = value.split("::")
            known = getattr(qt, owner, None) or classes.get(owner)
            if not hasattr(known, name):
                wrong.append(value)
    assert not wrong


def test_attributes_are_those_of_headers(tree):
    assert not [part.get("name") for part in tree.iter("attribute") if not HEADER.fullmatch(part.get("name"))]


def test_names_are_unique_words_in_camel_case(tree):
    root, *items = [item.get("name") for kind in ("widget", "layout", "spacer") for item in tree.iter(kind)]
    assert root == tree.findtext("class") == PANEL.stem
    assert len(set(items)) == len(items)
    assert not [name for name in items if not re.fullmatch(r"[a-z][A-Za-z0-9]*", name)]


def test_every_widget_has_a_tooltip(tree):
    _root, *inside = widgets(tree)
    tips = {item.get("name"): properties(item).get("toolTip") for item in inside}
    assert not [name for name, tip in tips.items() if tip is None or len(tip.findtext("string")) < 10]


def test_every_label_that_stands_before_a_widget_is_its_buddy(tree):
    names = {item.get("name") for item in widgets(tree)}
    buddies = [part.findtext("cstring") for item in widgets(tree) for part in item.findall("property[@name='buddy']")]
    assert set(buddies) <= names and len(set(buddies)) == len(buddies)


def test_tab_visits_every_control_from_top_to_bottom(tree, classes):
    """The headers of the sections too: they open with the space bar."""
    no_focus = {"QLabel", "QFrame", "QProgressBar", "QGroupBox", "QWidget", "qMRMLWidget"}
    expected = [item.get("name") for item in widgets(tree) if item.get("class") not in no_focus]
    assert [stop.text for stop in tree.iter("tabstop")] == expected


def test_every_selector_is_given_the_scene(tree):
    wanted = {item.get("name") for item in widgets(tree)[1:] if item.get("class").startswith("qMRML")}
    connected = [
        connection.findtext("receiver")
        for connection in tree.iter("connection")
        if connection.findtext("sender") == PANEL.stem
        and connection.findtext("signal") == "mrmlSceneChanged(vtkMRMLScene*)"
        and connection.findtext("slot") == "setMRMLScene(vtkMRMLScene*)"
    ]
    assert sorted(connected) == sorted(wanted)


def test_the_tabs_are_in_the_order_of_their_names(tree):
    from AirwaySegSlicer.panel.panel import TABS

    [tabs] = [item for item in widgets(tree) if item.get("class") == "QTabWidget"]
    assert tuple(item.get("name") for item in tabs.findall("widget")) == TABS


@pytest.mark.parametrize("tab", ["segmentTab", "reviewTab", "measureTab", "exportTab", "trainTab"])
def test_every_tab_fits_into_900_pixels_below_the_table(slicer_host, tab):
    """With the branches below the tabs that show them, but with Slicer's own editor closed."""
    panel = slicer.util.loadUI(str(PANEL))
    ui = slicer.util.childWidgetVariables(panel)
    ui.tabs.setCurrentWidget(getattr(ui, tab))
    ui.branchesFrame.visible = tab in ("reviewTab", "measureTab")
    assert panel.minimumSizeHint.height() <= HEIGHT - HEADERS


def test_the_panel_fits_into_a_narrow_dock_with_every_section_open(slicer_host, tree):
    panel = slicer.util.loadUI(str(PANEL))
    ui = slicer.util.childWidgetVariables(panel)
    for item in widgets(tree):
        if item.get("class") == "ctkCollapsibleButton":
            getattr(ui, item.get("name")).collapsed = False
    assert panel.minimumSizeHint.width() <= WIDTH


def test_every_named_widget_is_there_after_loading(slicer_host, tree):
    ui = slicer.util.childWidgetVariables(slicer.util.loadUI(str(PANEL)))
    assert not {item.get("name") for item in widgets(tree)[1:]} - set(vars(ui))
