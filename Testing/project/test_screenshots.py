"""The pictures of the tutorial: one for each step that the script draws, and small."""

import re

import pytest
from source_tree import ROOT

SCREENSHOTS = ROOT / "Resources" / "Screenshots"
MOST_BYTES = 200_000


def steps_of_script() -> list[str]:
    """The steps that Testing/slicer_screenshot.py can draw; it is not imported, as that needs Slicer's packages."""
    text = (ROOT / "Testing" / "slicer_screenshot.py").read_text("utf-8")
    return re.findall(r'^    "(\w+)": Session\.', text, re.MULTILINE)


def test_the_tutorial_shows_every_step_in_order():
    page = (ROOT / "docs" / "tutorial.md").read_text("utf-8")
    steps = steps_of_script()
    assert len(steps) > 5
    assert re.findall(r"tutorial-(\w+)\.png", page) == steps
    assert len(re.findall(r"^## \d+\. ", page, re.MULTILINE)) == len(steps)
    assert {path.name for path in SCREENSHOTS.glob("tutorial-*.png")} == {f"tutorial-{step}.png" for step in steps}


@pytest.mark.parametrize("path", sorted(SCREENSHOTS.glob("tutorial-*.png")), ids=lambda path: path.name)
def test_a_picture_of_the_tutorial_is_small(path):
    assert 0 < path.stat().st_size < MOST_BYTES
