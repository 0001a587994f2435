"""Combo boxes with translated texts and keys as their data."""

from collections.abc import Iterable
from typing import Any


def fill(combo: Any, items: Iterable[tuple[str, str]], chosen: str) -> None:
    """Set the (text, key) items of a combo box, and choose a key, without signals; an unknown key is added."""
    items = list(items)
    if chosen not in [key for _text, key in items]:
        items.append((chosen, chosen))
    if [(combo.itemText(row), combo.itemData(row)) for row in range(combo.count)] != items:
        blocked = combo.blockSignals(True)
        combo.clear()
        for text, key in items:
            combo.addItem(text, key)
        combo.blockSignals(blocked)
    choose(combo, chosen)


def choose(combo: Any, key: str) -> None:
    """Choose the item of a key, if there is one, without signals."""
    row = combo.findData(key)
    if row >= 0 and row != combo.currentIndex:
        blocked = combo.blockSignals(True)
        combo.currentIndex = row
        combo.blockSignals(blocked)


def chosen_key(combo: Any) -> str:
    """The key of the chosen item; empty without one."""
    key = combo.itemData(combo.currentIndex) if combo.currentIndex >= 0 else None
    return str(key) if key is not None else ""
