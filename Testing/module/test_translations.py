"""What the user reads can be translated: it goes through `_()` as Slicer's tool for translations finds it."""

import ast
import re
from pathlib import Path

import pytest
from source_tree import ROOT

FILES = [ROOT / "AirwaySeg/AirwaySeg.py", *sorted((ROOT / "AirwaySeg/AirwaySegSlicer").rglob("*.py"))]
SHOWN = {"errorDisplay", "confirmOkCancelDisplay", "showStatusMessage", "setTitleText", "SetTitle"}


def calls(path: Path) -> list[ast.Call]:
    return [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)]


def name_of(call: ast.Call) -> str:
    return getattr(call.func, "id", getattr(call.func, "attr", ""))


def is_bare(text: ast.expr) -> bool:
    """Whether words stand there that no translator sees."""
    return isinstance(text, ast.JoinedStr) or (
        isinstance(text, ast.Constant) and bool(re.search("[a-z]", str(text.value)))
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_sentences_that_are_shown_can_be_translated(path):
    shown = [call for call in calls(path) if name_of(call) in SHOWN | {"RuntimeError", "Finding"}]
    bare = [f"line {call.lineno}" for call in shown for text in call.args[:2] if is_bare(text)]
    assigned = [
        f"line {node.lineno}"
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "attr", "") in ("text", "toolTip", "helpText")
        if isinstance(node.value, ast.Constant) and node.value.value
    ]
    assert not bare and not assigned


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_is_translated_is_a_plain_text_with_named_places(path):
    for call in calls(path):
        if name_of(call) == "_":
            [text] = call.args
            assert isinstance(text, ast.Constant), f"line {call.lineno}"
            assert all(re.fullmatch(r"\w+", place) for place in re.findall(r"{(.*?)}", text.value)), text.value


def test_the_name_of_the_translation_means_nothing_else():
    for path in FILES:
        stored = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Name)]
        assert not [node.lineno for node in stored if node.id == "_" and isinstance(node.ctx, ast.Store)], path.name
