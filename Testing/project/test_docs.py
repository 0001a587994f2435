"""The documentation: it builds, its links lead somewhere, its commands and paths exist, and its examples run."""

import argparse
import importlib.util
import re
import shlex
import subprocess
import sys
from dataclasses import fields
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import SimpleITK as sitk
from phantoms import a_forked_tree, draw_tubes
from source_tree import ROOT

from AirwaySegLib.cohort.columns import BRANCH_CHANGE_COLUMNS, CASE_COLUMNS, CHANGE_COLUMNS, GENERATION_COLUMNS
from AirwaySegLib.commands import measure as measure_command
from AirwaySegLib.commands import segment as segment_command
from AirwaySegLib.repair.proposal import STATES
from AirwaySegLib.tree.export import TABLE_COLUMNS, SummaryRow
from AirwaySegLib.tree.suspect import KINDS

DOCS = ROOT / "docs"
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "Training/*.md", "Resources/Models/*.md", ".github/*.md")
    for path in ROOT.glob(pattern)
)
EVERY_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
PACKAGES = ("AirwaySeg/AirwaySegLib", "AirwaySeg/AirwaySegSlicer", "Training/AirwaySegTraining")
BASES = [ROOT / base for base in (".", "docs", "AirwaySeg", "Training", "Testing", *PACKAGES)]
"""Folders from which a page may name a file."""
SCRIPT_OPTIONS = {
    "--test",
    "--strict",
    "--help",
    "--fix",
    "--nproc-per-node",
    "--real",
    "--pasted",
    "--pairs",
    "--step",
}
SCRIPT_OPTIONS |= {"--options"}
"""Options of the repository's scripts and of other programs."""


def script(path: Path) -> ModuleType:
    """A Python file of docs/, imported."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def command_line() -> ModuleType:
    return script(DOCS / "make_command_line.py")


@cache
def parsers() -> dict[str, argparse.ArgumentParser]:
    """Every command and subcommand by its words."""
    maker = command_line()
    return {parser.prog: parser for root in maker.parsers() for parser, _ in maker.commands(root)}


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    return {name for action in parser._actions for name in action.option_strings}


def without_code(text: str) -> str:
    """The page without its blocks of code, in which a bracket is no link."""
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


# Links, paths and pages ----------------------------------------------------------------------------------------------


@EVERY_PAGE
def test_every_relative_link_and_picture_exists(page):
    links = re.findall(r"\]\(([^)\s#]+)", without_code(page.read_text("utf-8")))
    targets = [link for link in links if not re.match(r"[a-z]+:", link)]
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing, missing


@EVERY_PAGE
def test_every_file_that_a_page_names_exists(page):
    words = re.findall(r"[\w./*-]+/[\w./*-]+|[\w.*-]+\.(?:py|toml|cff|ui|s4ext)\b", page.read_text("utf-8"))
    named = {word.rstrip(".-") for word in words if re.search(r"\.(py|md|toml|png|txt|yml|cff|npz|ui|s4ext)$", word)}
    folders = r"^(AirwaySeg|Training|Testing|Resources|docs|\.github|\.ci)/"
    named |= {word.rstrip(".") for word in words if re.match(folders, word)}
    missing = sorted(word for word in named if not exists(word, page.parent))
    assert not missing, missing


def exists(word: str, folder: Path) -> bool:
    """Whether a path (`*` stands for anything) or, without a folder, a file's name is in the repository."""
    if "/" not in word and any(next((ROOT / top).rglob(word), None) for top in ("AirwaySeg", "Training", "Testing")):
        return True
    return any(next(base.glob(word.rstrip("/")), None) for base in (*BASES, folder) if ".." not in word) or (
        (folder / word).exists()
    )


@EVERY_PAGE
def test_every_module_that_a_page_names_exists(page):
    for name in set(re.findall(r"\b(AirwaySeg(?:Lib|Slicer|Training)(?:\.[a-z_]+)+)", page.read_text("utf-8"))):
        package, *parts = name.split(".")
        [folder] = [ROOT / base for base in PACKAGES if base.endswith(f"/{package}")]
        # The last part may be a function of the file.
        files = [folder.joinpath(*parts[:count]) for count in {len(parts), max(1, len(parts) - 1)}]
        assert any(path.is_dir() or path.with_suffix(".py").is_file() for path in files), name


def test_the_command_line_reference_is_current():
    maker = command_line()
    assert maker.PAGE.read_text("utf-8") == maker.page(), "run `python docs/make_command_line.py`"


def test_the_table_of_packages_is_current():
    maker = script(DOCS / "make_package_table.py")
    assert maker.PAGE.read_text("utf-8") == maker.page(), "run `python docs/make_package_table.py`"


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text("utf-8").partition("\nnav:")[2]
    assert not [path.name for path in DOCS.glob("*.md") if f": {path.name}\n" not in navigation]


def test_the_site_builds_without_a_warning(tmp_path):
    if not importlib.util.find_spec("mkdocs"):
        pytest.skip("mkdocs is not installed")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    page = (tmp_path / "site/index.html").read_text("utf-8")
    assert "images/preview.png" in page and (tmp_path / "site/images/preview.png").is_file()
    assert not re.findall(r'(?:src|href)="(https?://[^"]+\.(?:js|css|woff2?))"', page), "the site must work offline"


# Commands ------------------------------------------------------------------------------------------------------------


def shown_commands(page: Path) -> list[str]:
    """The lines of a page that call one of our commands, joined where they are continued."""
    text = re.sub(r"\s*\\\n\s*", " ", page.read_text("utf-8"))
    return re.findall(r"^ {4}(?:\S*[/\\])?(airwayseg(?:-train)? .*)$", text, re.MULTILINE)


@EVERY_PAGE
def test_every_command_shown_can_be_typed(page):
    for line in shown_commands(page):
        words = shlex.split(re.sub(r"[\[\]]|\.\.\.", "", line), comments=True)
        words = ["1" if word in ("N", "S", "MORE") else word for word in words]
        if words[1:] in (["--version"], ["--help"]):
            continue
        try:
            parsers()[words[0]].parse_args(words[1:])
        except SystemExit:
            pytest.fail(f"not a command: {line}")


@EVERY_PAGE
def test_every_command_within_a_sentence_exists(page):
    for line in re.findall(r"`(airwayseg(?:-train)?(?: [^`]*)?)`", page.read_text("utf-8").replace("\n", " ")):
        words = line.split()
        known = [" ".join(words[:count]) for count in (3, 2, 1) if " ".join(words[:count]) in parsers()]
        second = words[1] if len(words) > 1 else ""
        assert len(known[0].split()) > 1 or not re.match("[a-z]", second), f"no such command: {line}"
        options = {word for word in words if word.startswith("-")}
        assert options <= options_of(parsers()[known[0]]), line


@EVERY_PAGE
def test_every_option_that_a_page_names_exists(page):
    known = set().union(*(options_of(parser) for parser in parsers().values())) | SCRIPT_OPTIONS
    named = set(re.findall(r"`(--[a-z-]+)", page.read_text("utf-8")))
    assert named <= known, named - known


def test_scripts_of_the_documentation_find_the_helpers_that_they_import():
    helpers = "|".join(path.stem for path in (ROOT / "Testing/support").glob("*.py"))
    scripts = [*(ROOT / "Testing").glob("*.py"), *(ROOT / "Testing/benchmarks").glob("*.py")]
    texts = {path.name: path.read_text("utf-8") for path in scripts if path.name != "conftest.py"}
    users = {name: text for name, text in texts.items() if re.search(rf"^ *from ({helpers}) import", text, re.M)}
    assert users and not [name for name, text in users.items() if not re.search(r'sys\.path.*"support"', text)]


# Outputs -------------------------------------------------------------------------------------------------------------


def test_the_page_of_outputs_names_every_file_column_and_kind():
    page = (DOCS / "outputs.md").read_text("utf-8")
    pictures = {"preview.png", "tree.png", "radius.png", "repairs.png"}
    files = {*segment_command.FILES, *measure_command.FILES, measure_command.CURVES} - pictures
    columns = {name for name in TABLE_COLUMNS if not re.match("(start|end)_", name)}
    sums = {field.name for field in fields(SummaryRow)}
    assert not {name for name in files | columns | sums if name not in page}
    assert not {word for word in (*KINDS, *STATES) if f"`{word}`" not in page}


def test_the_page_of_outputs_names_every_column_of_a_cohort():
    page = (DOCS / "outputs.md").read_text("utf-8")
    assert {"length_generation_0_mm", "length_generation_10_mm", "lumen_area_generation_10_mm2"} <= set(
        re.findall(r"`(\w+)`", page)
    )
    documented = (*CASE_COLUMNS, *CHANGE_COLUMNS, *BRANCH_CHANGE_COLUMNS, *GENERATION_COLUMNS)
    names = {column.name for column in documented}
    named = {name for name in names if not re.search(r"_generation_\d+_mm", name)}
    assert not {name for name in named if f"`{name}`" not in page}


@EVERY_PAGE
def test_every_example_that_a_page_shows_is_included(page):
    """A formatter may take the marker of an included file for an expression and write spaces into it."""
    marked = [line for line in page.read_text("utf-8").splitlines() if re.match(r"-+ *8 *< *-+", line)]
    included = [re.fullmatch(r'--8<-- "(.+)"', line) for line in marked]
    assert all(found and (ROOT / found[1]).is_file() for found in included), marked


# Examples ------------------------------------------------------------------------------------------------------------


def test_the_example_measures_a_drawn_mask(tmp_path):
    tubes = a_forked_tree()
    image = sitk.GetImageFromArray(draw_tubes(tubes, (160, 64, 144), (1.25, 1.25, 1.25)).astype(np.uint8))
    image.SetSpacing((1.25, 1.25, 1.25))
    sitk.WriteImage(image, str(tmp_path / "mask.nrrd"))
    tree = script(DOCS / "examples/measure_mask.py").measure_mask(tmp_path / "mask.nrrd")
    assert len(tree.main()) == len(tubes)
    assert tree.main()[0].mean_diameter_mm == pytest.approx(2 * tubes[0].start_radius_mm, rel=0.05)


def test_the_example_segments_a_drawn_chest(tmp_path, a_chest):
    example = script(DOCS / "examples/segment_ct.py")
    image = sitk.GetImageFromArray(a_chest.hu)
    image.SetSpacing(a_chest.spacing_mm[::-1])
    sitk.WriteImage(image, str(tmp_path / "ct.nrrd"))
    example.load_model = dark_is_airway
    volume_ml = example.segment_ct(tmp_path / "ct.nrrd", tmp_path / "airways.nrrd")
    mask = sitk.ReadImage(str(tmp_path / "airways.nrrd"))
    assert mask.GetSize() == image.GetSize() and mask.GetSpacing() == pytest.approx(image.GetSpacing())
    drawn_ml = (a_chest.trachea | a_chest.bronchi).sum() * np.prod(a_chest.spacing_mm) / 1000
    assert volume_ml == pytest.approx(drawn_ml, rel=0.1)


def dark_is_airway(_name: str):
    """A model whose network is a threshold, so that nothing has to be computed for minutes."""
    from conftest import DarkIsAirway

    from AirwaySegLib.networks.weights import ModelInfo
    from AirwaySegLib.networks.wingsnet import WingsNet
    from AirwaySegLib.pipeline import Model
    from AirwaySegLib.repair.repair import RepairModel

    wide = {"spacing_mm_min": (0.1, 0.1, 0.1), "spacing_mm_max": (9.0, 9.0, 9.0)}
    info = ModelInfo(name="dark", window_hu=(-1000.0, 600.0), patch_zyx=(64, 64, 64), **wide)
    return Model(WingsNet(), info, "0" * 64, DarkIsAirway(), RepairModel("path", 0.5))


@pytest.mark.usefixtures("one_thread")
def test_the_example_trains_on_a_folder(tmp_path):
    ct = np.full((24, 24, 24), -100, np.int16)
    ct[:, 10:14, 10:14] = -950
    for name in ("one", "two"):
        folder = tmp_path / "data/cases" / name
        folder.mkdir(parents=True)
        sitk.WriteImage(sitk.GetImageFromArray(ct), str(folder / "ct.nrrd"))
        sitk.WriteImage(sitk.GetImageFromArray((ct < -500).astype(np.uint8)), str(folder / "label.nrrd"))
    tiny = {"steps": 1, "batch": 1, "patch": 32, "workers": 0, "validation": 0.0, "device": "cpu", "rate": 1e-4}
    weights = script(DOCS / "examples/train.py").train(tmp_path / "data", tmp_path / "run", **tiny)
    assert weights.is_file() and weights.suffix == ".safetensors"


# Version -------------------------------------------------------------------------------------------------------------


def test_citation_changelog_and_package_have_one_version():
    [package] = re.findall(r'^__version__ = "(.+)"$', (ROOT / PACKAGES[0] / "__init__.py").read_text("utf-8"), re.M)
    [citation] = re.findall(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text("utf-8"), re.M)
    changelog = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)
    assert package == citation == changelog[0]


def test_the_readme_fits_on_one_page():
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 120
