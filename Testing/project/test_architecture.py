"""The rules of CONTRIBUTING.md, executed: who may import whom, what is packaged, what agrees, what is too long."""

import ast
import graphlib
import json
import re
import tomllib
import xml.etree.ElementTree
from collections.abc import Iterator
from pathlib import Path

import cmake_lists
import numpy as np
import pytest
from draw_icon import ICON, draw_icon
from PIL import Image
from source_tree import ROOT

MODULE = ROOT / "AirwaySeg/AirwaySeg.py"
LIBRARY = ROOT / "AirwaySeg/AirwaySegLib"
SLICER_SIDE = ROOT / "AirwaySeg/AirwaySegSlicer"
TRAINING = ROOT / "Training/AirwaySegTraining"
MODELS = ROOT / "Resources/Models"

# What every file of a package may import besides its own package; files above all packages may import anything.
ABOVE_ALL = {"__main__", "early"}
LIBRARY_BASE = {"errors", "progress", "settings", "arguments"}
MAY_IMPORT = {
    "AirwaySegLib": {
        "files": LIBRARY_BASE,
        "masks": LIBRARY_BASE,
        "chest": LIBRARY_BASE | {"masks"},
        "networks": LIBRARY_BASE | {"files"},
        "edit": LIBRARY_BASE | {"masks"},
        "tree": LIBRARY_BASE | {"files", "masks"},
        "walls": LIBRARY_BASE | {"tree"},
        "evaluation": LIBRARY_BASE | {"masks"},
        "repair": LIBRARY_BASE | {"files", "masks", "chest", "networks", "tree"},
        "pictures": LIBRARY_BASE | {"masks", "tree", "repair"},
        "pipeline": LIBRARY_BASE | {"files", "masks", "chest", "networks", "repair"},
        "cohort": LIBRARY_BASE | {"files", "tree"},
        "commands": LIBRARY_BASE
        | {"files", "masks", "networks", "tree", "walls", "edit", "evaluation", "repair", "pictures", "pipeline"}
        | {"cohort"},
    },
    "AirwaySegSlicer": {
        "scene": {"event_loop"},
        "commands": {"event_loop", "scene"},
        "panel": {"event_loop", "scene", "commands"},
    },
    "AirwaySegTraining": {
        "simulator": {"workers"},
        "losses": set(),
        "data": {"distributed", "workers", "simulator", "losses"},
        "fit": {"distributed", "workers", "simulator", "losses", "data"},
        "connection": {"distributed", "workers", "simulator", "losses", "data", "fit"},
    },
}
BASES = {
    name: {other for allowed in table.values() for other in allowed} - set(table) for name, table in MAY_IMPORT.items()
}
# Every other file of the library can be imported where PyTorch is not installed.
NEEDS_TORCH = {
    "networks.wingsnet",
    "networks.connection_net",
    "networks.published_checkpoints",
    "networks.weights",
    "networks.search",
    "networks.sliding_window",
    "networks.speed",
    "networks.openvino_backend",
    "networks.device_plan",
    "repair.network_bridges",
    "pipeline",
    "commands.cohort",
    "commands.given_mask",
    "commands.info",
    "commands.provenance",
    "commands.segment",
    "commands.weights",
}
SLICER_PACKAGES = {"slicer", "qt", "ctk", "vtk"}
# What Slicer may import when it starts: nothing third-party but these.
MODULE_MAY_IMPORT = SLICER_PACKAGES | {"AirwaySegSlicer", "os", "subprocess", "collections", "dataclasses", "typing"}
MODULE_MAY_IMPORT |= {"vtkSlicerSegmentationsModuleMRMLPython", "vtkSlicerMarkupsModuleMRMLPython"}

MAX_FILE_LINES = 450
MAX_FUNCTION_LINES = 60
USUAL_FUNCTION_LINES = 30
MAX_PARAMETERS = 7

Function = ast.FunctionDef | ast.AsyncFunctionDef


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), filename=str(path))


def source_files() -> list[Path]:
    """Every Python file that is packaged."""
    return [MODULE, *(path for folder in (LIBRARY, SLICER_SIDE, TRAINING) for path in sorted(folder.rglob("*.py")))]


def imported_names(statement: ast.stmt) -> list[str]:
    """`import a.b` and `from a import b` both -> a.b, whether b is a file or an object."""
    if isinstance(statement, ast.Import):
        return [alias.name for alias in statement.names]
    if isinstance(statement, ast.ImportFrom):
        return [f"{'.' * statement.level}{statement.module or ''}.{alias.name}" for alias in statement.names]
    return []


def imports(path: Path, at_file_scope: bool = False) -> set[str]:
    """Dotted names that the file imports: anywhere, or only those that run when it is itself imported."""

    def statements(node: ast.AST) -> Iterator[ast.stmt]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.stmt):
                yield child
            inner = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
            if not (at_file_scope and isinstance(child, inner)):
                yield from statements(child)

    return {name for statement in statements(parse(path)) for name in imported_names(statement)}


def top_packages(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def module_of(path: Path) -> str:
    """Dotted name of a packaged file below its package: tree/build.py of the library -> tree.build."""
    folder = next(folder for folder in (LIBRARY, SLICER_SIDE, TRAINING) if folder in path.parents)
    return ".".join(path.relative_to(folder).with_suffix("").parts)


def modules(folder: Path) -> dict[str, Path]:
    """Every file of a package by its dotted name, without the `__init__` files."""
    return {module_of(path): path for path in sorted(folder.rglob("*.py")) if path.name != "__init__.py"}


def neighbours(path: Path, folder: Path, at_file_scope: bool = False) -> set[str]:
    """Dotted names of the files of the same package that a file imports."""
    names = {name.removeprefix(f"{folder.name}.") for name in imports(path, at_file_scope)}
    known = modules(folder)
    return {name for found in names for name in (found, found.rpartition(".")[0]) if name in known}


def concern(module: str) -> str:
    """Which part of a package a file belongs to: its folder, or its own name where it is in none."""
    return module.partition(".")[0]


# Imports -------------------------------------------------------------------------------------------------------------


PACKAGES = pytest.mark.parametrize("folder", [LIBRARY, SLICER_SIDE, TRAINING], ids=lambda folder: folder.name)


@PACKAGES
def test_every_file_belongs_to_a_concern_or_is_named_above_all(folder):
    known = set(MAY_IMPORT[folder.name]) | BASES[folder.name] | ABOVE_ALL
    unknown = [module for module in modules(folder) if concern(module) not in known]
    assert not unknown, f"give {unknown} a row in MAY_IMPORT"


@PACKAGES
def test_imports_between_concerns_are_those_of_the_table(folder):
    table = MAY_IMPORT[folder.name]
    wrong = [
        f"{module} imports {other}"
        for module, path in modules(folder).items()
        if concern(module) not in ABOVE_ALL
        for other in sorted(neighbours(path, folder))
        if concern(other) != concern(module) and concern(other) not in table.get(concern(module), BASES[folder.name])
    ]
    assert not wrong, wrong


@PACKAGES
def test_imports_within_a_package_make_no_circle(folder):
    graph = {module: neighbours(path, folder) for module, path in modules(folder).items()}
    assert list(graphlib.TopologicalSorter(graph).static_order())


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        (LIBRARY, SLICER_PACKAGES | {"AirwaySegSlicer", "AirwaySegTraining", "AirwaySeg"}),
        (TRAINING, SLICER_PACKAGES | {"AirwaySegSlicer", "AirwaySeg"}),
        (SLICER_SIDE, {"AirwaySegTraining", "AirwaySeg", "torch"}),
    ],
    ids=["library", "training", "Slicer side"],
)
def test_a_package_knows_nothing_above_it(folder, forbidden):
    found = {path.name: top_packages(imports(path)) & forbidden for path in folder.rglob("*.py")}
    assert not {name: packages for name, packages in found.items() if packages}


def test_imports_of_our_own_files_are_absolute():
    relative = [f"{path.name}: {name}" for path in source_files() for name in imports(path) if name.startswith(".")]
    assert not relative, relative


def test_importing_a_file_imports_torch_only_where_the_network_is_needed():
    files = modules(LIBRARY)
    needs_torch = {name for name, path in files.items() if "torch" in top_packages(imports(path, at_file_scope=True))}
    graph = {name: neighbours(path, LIBRARY, at_file_scope=True) for name, path in files.items()}
    for name in graphlib.TopologicalSorter(graph).static_order():
        if graph.get(name, set()) & needs_torch:
            needs_torch.add(name)
    assert needs_torch == NEEDS_TORCH


def test_the_module_file_imports_nothing_heavy_when_slicer_starts():
    assert top_packages(imports(MODULE, at_file_scope=True)) <= MODULE_MAY_IMPORT


# Packaging -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", sorted({row[0] for row in cmake_lists.LISTS}))
def test_cmake_installs_exactly_the_files_of_the_tree(folder):
    listed = (ROOT / folder / "CMakeLists.txt").read_text("utf-8")
    assert listed == cmake_lists.with_lists(folder), "run `python Testing/project/cmake_lists.py`"


def extension_settings() -> dict[str, str]:
    """EXTENSION_* of the root CMakeLists.txt, keys in lower case without the prefix."""
    text = (ROOT / "CMakeLists.txt").read_text("utf-8")
    return {key.lower(): value for key, value in re.findall(r'set\(EXTENSION_(\w+) "([^"]*)"\)', text)}


def s4ext_settings() -> dict[str, str]:
    lines = (ROOT / "AirwaySeg.s4ext").read_text("utf-8").splitlines()
    return dict(line.split(" ", 1) for line in lines if line and not line.startswith("#"))


def test_s4ext_says_what_cmake_says():
    cmake, s4ext = extension_settings(), s4ext_settings()
    shared = ["homepage", "contributors", "description", "iconurl", "screenshoturls", "depends"]
    assert {key: s4ext[key] for key in shared} == {key: cmake[key] for key in shared}


def test_catalogue_entry_says_what_s4ext_says():
    entry, s4ext = json.loads((ROOT / "AirwaySeg.json").read_text("utf-8")), s4ext_settings()
    assert entry["$schema"].endswith("slicer-extension-catalog-entry-schema-v1.0.2.json#")
    assert entry["build_dependencies"] == s4ext["depends"].split()
    assert (entry["scm_url"], entry["scm_revision"]) == (s4ext["scmurl"], s4ext["scmrevision"])
    assert (entry["category"], entry["build_subdirectory"]) == (s4ext["category"], s4ext["build_subdirectory"])
    assert entry["tier"] == int(s4ext["tier"])


def test_extension_settings_survive_cmake_lists():
    assert not [key for key, value in extension_settings().items() if ";" in value], "a ';' cuts the text in two"


def pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def test_the_version_stands_in_one_file_and_heads_the_changelog():
    first = (LIBRARY / "__init__.py").read_text("utf-8")
    version = re.search(r'^__version__ = "(\d+\.\d+\.\d+)"$', first, re.MULTILINE)
    assert version and "version" in pyproject()["project"]["dynamic"]
    assert re.findall(r"^## \[(\d[^\]]*)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)[0] == version[1]


def test_slicer_installs_the_requirements_of_pyproject():
    lines = (ROOT / "AirwaySeg/Resources/requirements.txt").read_text("utf-8").splitlines()
    required = {line for line in lines if line and not line.startswith("#")}
    dependencies = set(pyproject()["project"]["dependencies"])
    in_slicer = {line for line in dependencies if re.match(r"(numpy|scipy|SimpleITK|torch)\b", line)}
    assert required == dependencies - in_slicer


def test_constraints_pin_every_direct_dependency():
    project = pyproject()["project"]
    wanted = sum(project["optional-dependencies"].values(), project["dependencies"])
    pinned = re.findall(r"^([\w.-]+)==", (ROOT / "constraints.txt").read_text("utf-8").lower(), re.MULTILINE)
    assert not {re.match(r"[\w-]+", line)[0].lower() for line in wanted} - set(pinned)


# The Slicer module ---------------------------------------------------------------------------------------------------


def module_classes() -> dict[str, ast.ClassDef]:
    return {node.name: node for node in parse(MODULE).body if isinstance(node, ast.ClassDef)}


def ui_widgets() -> set[str]:
    ui = xml.etree.ElementTree.parse(ROOT / "AirwaySeg/Resources/UI/AirwaySeg.ui")
    return {widget.get("name") for widget in ui.iter("widget")}


def test_the_module_has_slicers_five_classes_in_order():
    names = [f"AirwaySeg{part}" for part in ("", "ParameterNode", "Widget", "Logic", "Test")]
    assert list(module_classes()) == names


def test_every_widget_that_the_panel_uses_is_in_the_ui_file():
    files = [MODULE, *(ROOT / "AirwaySeg/AirwaySegSlicer").rglob("*.py")]
    used = {name for path in files for name in re.findall(r"\bui\.(\w+)", path.read_text("utf-8"))}
    assert len(used) > 20 and used <= ui_widgets()


def test_every_parameter_that_the_ui_file_names_exists():
    node = module_classes()["AirwaySegParameterNode"]
    parameters = {item.target.id for item in node.body if isinstance(item, ast.AnnAssign)}
    ui = xml.etree.ElementTree.parse(ROOT / "AirwaySeg/Resources/UI/AirwaySeg.ui")
    named = {item.findtext("string") for item in ui.iter("property") if item.get("name") == "SlicerParameterName"}
    assert named and named <= parameters


def test_the_icon_is_the_one_that_its_script_draws():
    icon, drawn = Image.open(ICON), draw_icon()
    assert icon.size == drawn.size == (128, 128)
    # Another version of Pillow may round a few edge pixels differently.
    assert np.abs(np.asarray(icon, dtype=int) - np.asarray(drawn, dtype=int)).mean() < 2


# Prose and size ------------------------------------------------------------------------------------------------------


def text_files() -> list[Path]:
    kinds = {".py", ".md", ".txt", ".toml", ".yaml", ".yml", ".json", ".s4ext", ".ui", ".cmake", ".cff"}
    folders = ("AirwaySeg", "Training", "Testing", "Resources", "docs", ".ci", ".github")
    paths = [*ROOT.iterdir(), *(path for folder in folders for path in (ROOT / folder).rglob("*"))]
    return [path for path in paths if path.is_file() and (path.suffix in kinds or path.name == "run")]


# Written in pieces, so that this file does not find itself.
UNWANTED = [
    r"(^|[^\w.])/(work|farm|tmp|root|home)" + "/",
    r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b",
    "Not" + "ImplementedError",
    "pragma: " + "no cover",
    "type: " + "ignore",
    "# no" + "qa",
    r"py" + r"pi\.org|python" + r"hosted|download\.py" + r"torch",
]


@pytest.mark.parametrize("pattern", UNWANTED)
def test_no_file_contains(pattern):
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in text_files()
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1)
        if re.search(pattern, line)
    ]
    assert not found, found


def functions(path: Path) -> list[Function]:
    return [node for node in ast.walk(parse(path)) if isinstance(node, Function)]


def length(function: Function) -> int:
    return function.end_lineno - function.lineno + 1


def test_files_and_functions_are_short():
    long_files = [path.name for path in source_files() if len(path.read_text("utf-8").splitlines()) > MAX_FILE_LINES]
    everything = [(path.name, function) for path in source_files() for function in functions(path)]
    long_functions = [f"{name}: {item.name}" for name, item in everything if length(item) > MAX_FUNCTION_LINES]
    assert not long_files and not long_functions
    longer = sum(length(item) > USUAL_FUNCTION_LINES for _, item in everything)
    assert longer <= 0.1 * len(everything), f"{longer} of {len(everything)} exceed {USUAL_FUNCTION_LINES} lines"


def public_functions(path: Path) -> list[Function]:
    """Functions of the file and methods of its public classes that a reader may call."""
    body = parse(path).body
    classes = [node for node in body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    members = [node for node in body + [item for owner in classes for item in owner.body] if isinstance(node, Function)]
    return [node for node in members if not node.name.startswith("_") or node.name == "__call__"]


def parameters(function: Function) -> list[ast.arg]:
    every = function.args.posonlyargs + function.args.args + function.args.kwonlyargs
    return [argument for argument in every if argument.arg not in ("self", "cls")]


def test_public_functions_are_documented_and_take_few_parameters():
    everything = [(path.name, function) for path in source_files() for function in public_functions(path)]
    silent = [f"{name}: {item.name}" for name, item in everything if not ast.get_docstring(item)]
    many = [f"{name}: {item.name}" for name, item in everything if len(parameters(item)) > MAX_PARAMETERS]
    assert not silent and not many


def test_public_functions_of_both_libraries_are_typed():
    packaged = [path for folder in (LIBRARY, SLICER_SIDE, TRAINING) for path in folder.rglob("*.py")]
    untyped = [
        f"{path.name}: {item.name}"
        for path in packaged
        for item in public_functions(path)
        if item.returns is None or any(arg.annotation is None for arg in parameters(item))
    ]
    assert not untyped, untyped


def test_every_file_says_first_what_it_owns():
    assert not [path.name for path in source_files() if not ast.get_docstring(parse(path))]
