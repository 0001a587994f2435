"""Names by hand in the panel: given, shown, taken back, kept by measuring and saving, and exported."""

import csv
import json

import numpy as np
import pytest
import slicer
import slicerhost

from AirwaySegSlicer.scene import nodes, overlay_kinds
from AirwaySegSlicer.scene.branches import BranchRow, branch_rows
from AirwaySegSlicer.scene.hand_names import ESTIMATED, hand_names, show_names
from AirwaySegSlicer.scene.steps import last_step


def rows(desk) -> list[BranchRow]:
    return branch_rows(nodes.companion(desk.airways, nodes.CENTERLINE))


def by_hand(desk) -> dict[int, str]:
    """The segment's code, or the lobe, of each branch with a name by hand."""
    return {row.id: (row.segment.split() or [row.lobe])[0] for row in rows(desk) if row.by_hand}


def table_of(desk) -> dict[str, list]:
    table = nodes.companion(desk.airways, nodes.TABLE).GetTable()
    names = ("lobe", "lobe_confidence", "segment", "segment_confidence", "by_hand", "name")
    return {
        name: [table.GetColumnByName(name).GetValue(row) for row in range(table.GetNumberOfRows())] for name in names
    }


def below(desk, number: int) -> set[int]:
    """A branch and what springs from it, by id."""
    found = {number}
    for row in rows(desk):
        if row.parent in found:
            found.add(row.id)
    return found


def a_fork(desk) -> int:
    """A main bronchus: it has two children."""
    return next(row.id for row in rows(desk) if row.generation == 1)


def give(desk, number: int, text: str) -> None:
    """What a person does: choose the row, choose the name, press the button."""
    desk.turn_to("measureTab")
    desk.select_branch(number)
    desk.choose("nameComboBox", text)
    desk.click("nameButton")


def shown(desk, number: int) -> str:
    """The last column of a branch's row."""
    table = desk.ui.branchTable
    row = next(row for row in range(table.rowCount) if table.item(row, 0).text() == str(number))
    return table.item(row, table.columnCount - 1).text()


def test_a_branch_and_its_subtree_are_named_and_marked_and_the_step_has_a_name(a_measured_desk):
    desk, fork = a_measured_desk, a_fork(a_measured_desk)
    before = table_of(desk)
    desk.turn_to("measureTab")
    assert not desk.ui.nameButton.enabled and not desk.ui.estimateButton.enabled
    give(desk, fork, "RB6 superior")
    assert by_hand(desk) == dict.fromkeys(below(desk, fork), "RB6") and len(below(desk, fork)) == 3
    child = max(below(desk, fork))
    assert shown(desk, child) == "RB6 (hand)" and "hand" not in shown(desk, 1)
    after = table_of(desk)
    for row in rows(desk):
        mine = {name: values[row.id - 1] for name, values in after.items()}
        if row.id in below(desk, fork):
            names = ("right lower lobe", "RB6", "lobe and segment")
            assert (mine["lobe"], mine["segment"], mine["by_hand"]) == names
            assert mine["lobe_confidence"] == mine["segment_confidence"] == 1
        else:
            assert mine == {name: values[row.id - 1] for name, values in before.items()}
    assert last_step(desk.airways) == f"name branch {fork}: RB6"
    assert desk.ui.statusLabel.text == f"Name branch {fork}: RB6."
    assert desk.section("Result").table.chosen() == fork and not desk.host.messages


def test_the_panel_stays_narrow_with_all_names_to_choose_from(a_measured_desk):
    desk = a_measured_desk
    give(desk, a_fork(desk), "LB1+2 apicoposterior")
    assert desk.ui.branchesFrame.minimumSizeHint.width() <= 400


def test_undo_and_redo_restore_the_names_also_by_the_editors_own_buttons(a_measured_desk):
    desk, fork = a_measured_desk, a_fork(a_measured_desk)
    before = table_of(desk)
    give(desk, fork, "left upper lobe")
    desk.select_branch(max(below(desk, fork)))
    desk.choose("nameComboBox", "LB5 inferior lingular")
    desk.ui.nameSubtreeCheckBox.checked = False
    desk.click("nameButton")
    named = table_of(desk)
    assert set(by_hand(desk)) == below(desk, fork) and by_hand(desk)[max(below(desk, fork))] == "LB5"
    assert desk.logic.undo(desk.airways) == f"Undone: name branch {max(below(desk, fork))}: LB5."
    assert set(by_hand(desk).values()) != {"LB5"} and len(hand_names(desk.airways)) == 1
    desk.logic.undo(desk.airways)
    assert table_of(desk) == before and not by_hand(desk)
    desk.logic.redo(desk.airways)
    desk.logic.redo(desk.airways)
    assert table_of(desk) == named
    editor = desk.section("Correct").editor_of(desk.airways)
    editor.undo()
    desk.host.pump(lambda: len(hand_names(desk.airways)) == 1 and "LB5" not in by_hand(desk).values())


def test_a_branch_is_estimated_again_and_one_below_a_name_says_where_it_comes_from(a_measured_desk):
    desk, fork = a_measured_desk, a_fork(a_measured_desk)
    before = table_of(desk)
    give(desk, fork, "RB10 posterior basal")
    child = max(below(desk, fork))
    with pytest.raises(RuntimeError, match=f"Branch {child} has its name from branch {fork}; choose that one"):
        desk.logic.estimateAgain(desk.airways, child)
    with pytest.raises(RuntimeError, match="Branch 1 was not named by hand"):
        desk.logic.estimateAgain(desk.airways, 1)
    with pytest.raises(RuntimeError, match="There is no branch 8"):
        desk.logic.nameBranch(desk.airways, 8, "right upper lobe")
    with pytest.raises(RuntimeError, match="RB6 is a segment of the right lower lobe"):
        desk.logic.nameBranch(desk.airways, 2, "right upper lobe", "RB6")
    desk.select_branch(fork)
    desk.click("estimateButton")
    assert table_of(desk) == before and not hand_names(desk.airways)
    assert desk.ui.statusLabel.text == f"Estimate branch {fork} again." and not desk.ui.estimateButton.enabled
    assert not desk.host.messages


def generations(desk) -> dict[int, int]:
    return {row.id: row.generation for row in rows(desk)}


def set_generation(desk, number: int, generation: int) -> None:
    """What a person does: choose the row and "generation", set the number, press the button."""
    desk.turn_to("measureTab")
    desk.select_branch(number)
    desk.choose("nameComboBox", "generation")
    desk.ui.generationSpinBox.value = generation
    desk.click("nameButton")


def test_a_generation_by_hand_counts_on_and_is_taken_back_by_undo(a_measured_desk):
    desk, fork, ui = a_measured_desk, a_fork(a_measured_desk), a_measured_desk.ui
    before, table = generations(desk), nodes.companion(desk.airways, nodes.TABLE).GetTable()
    desk.turn_to("measureTab")
    desk.select_branch(fork)
    assert ui.generationSpinBox.isHidden() and not ui.nameSubtreeCheckBox.isHidden()
    desk.choose("nameComboBox", "generation")
    assert not ui.generationSpinBox.isHidden() and ui.nameSubtreeCheckBox.isHidden()
    assert ui.generationSpinBox.value == before[fork] and ui.branchesFrame.minimumSizeHint.width() <= 400
    set_generation(desk, fork, 4)
    wanted = {number: value + (3 if number in below(desk, fork) else 0) for number, value in before.items()}
    assert generations(desk) == wanted
    assert [table.GetColumnByName("generation").GetValue(row) for row in range(7)] == list(wanted.values())
    centerline = nodes.companion(desk.airways, nodes.CENTERLINE)
    assert set(slicer.util.arrayFromModelPointData(centerline, "generation").tolist()) == set(wanted.values())
    assert {row.id for row in rows(desk) if row.by_hand == "generation"} == below(desk, fork)
    assert "hand" not in shown(desk, fork) and ui.statusLabel.text == f"Name branch {fork}: generation 4."
    assert "down to generation 5" in ui.summaryLabel.text
    assert desk.logic.undo(desk.airways) == f"Undone: name branch {fork}: generation 4."
    assert generations(desk) == before
    desk.logic.redo(desk.airways)
    assert generations(desk) == wanted and not desk.host.messages


def test_generation_and_segment_of_one_branch_stand_beside_each_other(a_measured_desk):
    desk, fork = a_measured_desk, a_fork(a_measured_desk)
    before, child = table_of(desk), max(below(desk, fork))
    set_generation(desk, fork, 7)
    give(desk, fork, "RB6 superior")
    set_generation(desk, fork, 3)
    assert generations(desk)[child] == 4 and len(hand_names(desk.airways)) == 1
    assert {row.by_hand for row in rows(desk) if row.id in below(desk, fork)} == {"lobe and segment and generation"}
    with pytest.raises(RuntimeError, match=f"Branch {child} has its name from branch {fork}"):
        desk.logic.estimateAgain(desk.airways, child)
    with pytest.raises(RuntimeError, match="The generation 41 is not from 0 to 40"):
        desk.logic.giveGeneration(desk.airways, fork, 41)
    desk.select_branch(fork)
    desk.click("estimateButton")
    assert table_of(desk) == before and generations(desk)[fork] == 1 and not hand_names(desk.airways)


def test_a_generation_is_kept_by_measuring_and_saving_and_goes_into_a_case(a_measured_desk, tmp_path):
    desk, fork = a_measured_desk, a_fork(a_measured_desk)
    before = generations(desk)
    set_generation(desk, fork, 5)
    desk.open("measureTab")
    desk.choose("overlayComboBox", "generation")
    surface = nodes.companion(desk.airways, nodes.SURFACE)
    assert slicer.util.arrayFromModelPointData(surface, "generation").max() == 6
    given = generations(desk)
    desk.click("measureButton")
    desk.wait()
    assert generations(desk) == given
    desk.logic.exportCase(desk.airways, str(tmp_path / "case"))
    [name] = json.loads((tmp_path / "case" / "names.json").read_text())["names"]
    assert name["generation"] == 5 and not name["lobe"] and not name["segment"]
    with open(tmp_path / "case" / "branches.csv", newline="") as stream:
        assert {int(row["id"]): int(row["generation"]) for row in csv.DictReader(stream)} == given
    desk.save_and_reload(str(tmp_path / "case.mrb"))
    assert generations(desk) == given
    desk.logic.estimateAgain(desk.airways, fork)
    assert generations(desk) == before and not desk.host.messages


def test_a_second_name_of_a_branch_replaces_its_first_and_none_takes_the_estimate_away(a_measured_desk):
    desk, fork = a_measured_desk, a_fork(a_measured_desk)
    give(desk, fork, "RB6 superior")
    give(desk, fork, "no lobe")
    assert len(hand_names(desk.airways)) == 1 and set(by_hand(desk).values()) == {""}
    assert shown(desk, max(below(desk, fork))) == "no lobe (hand)"


def test_names_survive_measuring_an_edited_tree_and_taking_the_edit_back(a_measured_desk):
    desk = a_measured_desk
    last = rows(desk)[-1].id
    give(desk, last, "LB9 lateral basal")
    other = next(row.id for row in rows(desk) if row.generation == 2 and row.id != last)
    desk.logic.cut(desk.airways, [end_of(desk, other)], "subtree")
    desk.click("measureButton")
    desk.wait()
    assert len(rows(desk)) < 7 and list(by_hand(desk).values()) == ["LB9"]
    assert by_hand(desk) != {last: "LB9"}  # it has another number now
    desk.section("Correct").on_take_back()
    desk.click("measureButton")
    desk.wait()
    assert by_hand(desk) == {last: "LB9"} and not desk.host.messages


def test_names_that_lost_their_branch_are_told_until_they_are_forgotten(a_measured_desk):
    desk, ui = a_measured_desk, a_measured_desk.ui
    give(desk, a_fork(desk), "no segment")
    assert shown(desk, a_fork(desk)) == "no segment (hand)"
    desk.logic.undo(desk.airways)
    last = rows(desk)[-1].id
    give(desk, last, "LB9 lateral basal")
    assert ui.forgetNamesButton.isHidden() and "names by hand" not in ui.summaryLabel.text
    desk.logic.cut(desk.airways, [end_of(desk, last)], "subtree")
    desk.click("measureButton")
    desk.wait()
    assert "No branch is near these names by hand: LB9." in ui.summaryLabel.text
    assert not ui.forgetNamesButton.isHidden() and len(hand_names(desk.airways)) == 1
    desk.click("forgetNamesButton")
    assert not hand_names(desk.airways) and ui.forgetNamesButton.isHidden()
    assert ui.statusLabel.text == "Forget lost names." and "names by hand" not in ui.summaryLabel.text
    with pytest.raises(RuntimeError, match="Every name by hand of CT airways has its branch"):
        desk.logic.forgetLostNames(desk.airways)
    assert desk.logic.undo(desk.airways) == "Undone: forget lost names."
    assert len(hand_names(desk.airways)) == 1 and not desk.host.messages


def end_of(desk, number: int) -> tuple[float, float, float]:
    from AirwaySegSlicer.scene.branches import branch_points

    x, y, z = branch_points(nodes.companion(desk.airways, nodes.CENTERLINE), number)[0][-1].tolist()
    return x, y, z


def estimates(desk) -> list[tuple]:
    """What was estimated of each branch, in the order of their numbers."""
    centerline = nodes.companion(desk.airways, nodes.CENTERLINE)
    arrays = [slicer.util.arrayFromModelCellData(centerline, name) for name in ("branch_id", *ESTIMATED)]
    return [tuple(values[1:]) for values in sorted(zip(*(array.tolist() for array in arrays), strict=True))]


def test_what_was_estimated_is_known_after_measuring_with_names(a_measured_desk):
    desk, fork = a_measured_desk, a_fork(a_measured_desk)
    before, known = table_of(desk), estimates(desk)
    give(desk, fork, "right middle lobe")
    desk.click("measureButton")
    desk.wait()
    assert estimates(desk) == known and set(by_hand(desk)) == below(desk, fork)
    desk.logic.estimateAgain(desk.airways, fork)
    assert table_of(desk) == before


def test_names_come_back_with_a_saved_scene_and_can_be_taken_away_then(a_measured_desk, tmp_path):
    desk, fork, path = a_measured_desk, a_fork(a_measured_desk), str(tmp_path / "case.mrb")
    give(desk, fork, "LB1+2 apicoposterior")
    names, before = hand_names(desk.airways), table_of(desk)
    desk.save_and_reload(path)
    assert hand_names(desk.airways) == names and table_of(desk) == before
    assert set(by_hand(desk).values()) == {"LB1+2"}
    desk.logic.estimateAgain(desk.airways, fork)
    assert not by_hand(desk) and not desk.host.messages


def test_the_overlay_of_the_segments_follows_a_name(a_measured_desk):
    desk, fork = a_measured_desk, a_fork(a_measured_desk)
    desk.open("measureTab")
    desk.choose("overlayComboBox", "segment")

    def values() -> set:
        return set(np.unique(slicer.util.arrayFromModelPointData(surface(), "segment")).tolist())

    def surface():
        return nodes.companion(desk.airways, nodes.SURFACE)

    number = [name.split()[0] for name in overlay_kinds.SEGMENT_NAMES].index("RB2") + 1
    assert number not in values()
    give(desk, fork, "RB2 posterior")
    assert number in values()
    desk.logic.undo(desk.airways)
    desk.widget.panel.update()
    assert number not in values() and not desk.host.messages


def test_a_whole_case_carries_the_names_and_their_branches(a_measured_desk, tmp_path):
    desk, fork, folder = a_measured_desk, a_fork(a_measured_desk), tmp_path / "case"
    give(desk, fork, "RB8 anterior basal")
    desk.logic.exportCase(desk.airways, str(folder))
    document = json.loads((folder / "names.json").read_text())
    assert document["format"] == "AirwaySeg names 1" and [one["segment"] for one in document["names"]] == ["RB8"]
    with open(folder / "branches.csv", newline="") as stream:
        written = list(csv.DictReader(stream))
    assert {int(row["id"]) for row in written if row["by_hand"]} == below(desk, fork)
    desk.logic.estimateAgain(desk.airways, fork)
    desk.logic.exportCase(desk.airways, str(folder))
    assert not (folder / "names.json").exists()


def test_names_move_with_a_result_that_is_moved_for_good(a_measured_desk):
    desk, fork = a_measured_desk, a_fork(a_measured_desk)
    give(desk, fork, "RB6 superior")
    before = hand_names(desk.airways)[0].points_mm
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    matrix = np.eye(4)
    matrix[:3, 3] = (10, 20, 30)
    slicer.util.updateTransformMatrixFromArray(transform, matrix)
    desk.airways.SetAndObserveTransformNodeID(transform.GetID())
    desk.airways.HardenTransform()
    moved = np.subtract(hand_names(desk.airways)[0].points_mm, before)
    assert moved == pytest.approx(np.broadcast_to((-10, -20, 30), moved.shape))
    desk.click("measureButton")
    desk.wait()
    assert set(by_hand(desk).values()) == {"RB6"} and not desk.host.messages


def test_a_tree_of_an_earlier_version_asks_to_be_measured(a_measured_desk):
    desk = a_measured_desk
    cells = nodes.companion(desk.airways, nodes.CENTERLINE).GetPolyData().GetCellData()
    cells.RemoveArray("by_hand")
    show_names(desk.airways)
    with pytest.raises(RuntimeError, match="CT airways was measured by an older version: measure it again"):
        desk.logic.nameBranch(desk.airways, 2, "right upper lobe")
    desk.select_branch(2)
    desk.choose("nameComboBox", "right upper lobe")
    slicerhost.click(desk.ui.nameButton)
    assert desk.host.messages.pop() and not hand_names(desk.airways)
