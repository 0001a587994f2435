"""What Slicer's catalogue of extensions checks by machine, on the files of this repository."""

import re

import pytest
from PIL import Image
from source_tree import ROOT

RAW = "https://example.org/SlicerAirwaySeg/raw/main/"


def cmake() -> str:
    return (ROOT / "CMakeLists.txt").read_text("utf-8")


def setting(name: str) -> str:
    """A setting as the catalogue looks for it: on one line, in quotation marks."""
    [text] = re.findall(rf'set\s*\(EXTENSION_{name}\s*"([^"]+)"[ ]*\)', cmake())
    return text


def test_extension_and_project_have_the_name_of_the_catalogue_entry():
    assert re.findall(r"project\s*\(\s*([^\s\)]+)", cmake()) == ["AirwaySeg"] and (ROOT / "AirwaySeg.json").is_file()
    assert setting("HOMEPAGE").rsplit("/", 1)[1] == "SlicerAirwaySeg"


def test_the_icon_is_a_picture_of_this_repository():
    icon = Image.open(ROOT / setting("ICONURL").removeprefix(RAW))
    assert icon.format == "PNG" and icon.size == (128, 128)


@pytest.mark.parametrize("url", setting("SCREENSHOTURLS").split())
def test_every_screenshot_is_a_picture_of_this_repository(url):
    path = ROOT / url.removeprefix(RAW)
    assert Image.open(path).format == "PNG" and path.stat().st_size < 1024**2


def test_the_first_screenshot_is_that_of_the_module():
    assert setting("SCREENSHOTURLS").split()[0].endswith("/slicer.png")


def test_licence_and_readme_are_where_cmake_says():
    for name in ("LICENSE", "README.md"):
        assert f'"${{CMAKE_CURRENT_SOURCE_DIR}}/{name}"' in cmake() and (ROOT / name).is_file()
    assert "Apache License" in (ROOT / "LICENSE").read_text("utf-8")
    readme = (ROOT / "README.md").read_text("utf-8")
    assert "Apache License 2.0" in readme and "medical device" in readme and "arXiv" in readme
