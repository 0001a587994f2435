"""Tests of AirwaySegSlicer's event loop and jobs: calls later, what they let go of, the end of a run with a reason."""

import gc
import os
import weakref

import module_scenes as scenes
import numpy as np
import pytest
import slicer
import vtk

from AirwaySegSlicer import event_loop
from AirwaySegSlicer.commands import jobs
from AirwaySegSlicer.commands import segment as segmentation
from AirwaySegSlicer.scene import nodes

pytestmark = pytest.mark.usefixtures("slicer_host")


# Calls from the event loop -------------------------------------------------------------------------------------------


def test_what_is_called_later_is_called_once_in_order_and_not_at_once(slicer_host):
    called = []
    event_loop.call_later(lambda: called.append("last"), 0.05)
    for name in "abc":
        event_loop.call_later(lambda name=name: called.append(name))
    assert not called
    slicer_host.pump(lambda: "last" in called and not event_loop._later._waiting)
    assert called == ["a", "b", "c", "last"]


def test_what_was_called_is_let_go_of(slicer_host):
    class Work:
        def do(self):
            done.append(True)

    done, work = [], Work()
    gone = weakref.ref(work)
    event_loop.call_later(work.do)
    del work
    slicer_host.pump(lambda: bool(done))
    assert gone() is None


def test_after_an_error_the_others_are_still_called(slicer_host):
    def fail():
        raise KeyError("in a call")

    called = []
    event_loop.call_later(fail)
    event_loop.call_later(lambda: called.append(True))
    with pytest.raises(KeyError):
        slicer_host.pump(lambda: False)
    slicer_host.pump(lambda: bool(called))


def test_a_dialog_that_a_call_opens_does_not_stop_the_others(slicer_host):
    """A dialog runs an event loop of its own, in which Qt does not fire the timer that is being served."""
    called = []
    event_loop.call_later(lambda: slicer_host.pump(lambda: bool(called)))
    event_loop.call_later(lambda: called.append(True))
    slicer_host.pump(lambda: not event_loop._later._waiting)
    assert called


# What is freed -------------------------------------------------------------------------------------------------------


@pytest.fixture
def a_logic(tmp_path, monkeypatch):
    """The logic; segmenting is a stand-in, measuring is real."""
    monkeypatch.setenv("PATH", scenes.python_slicer(tmp_path, stand_ins=True), prepend=os.pathsep)
    monkeypatch.setenv("AIRWAYSEG_KEPT", str(tmp_path / "kept"))
    import AirwaySeg  # which needs Qt, that the host brings

    logic = AirwaySeg.AirwaySegLogic()
    yield logic
    logic.close()


def test_after_a_segmentation_nothing_holds_its_nodes_and_images(a_logic, slicer_host):
    freed, ends = [], []
    ct, _mask = scenes.a_ct()
    a_logic.startSegment(ct, segmentation.SegmentOptions(), jobs.Listener(lambda *end: ends.append(end)))
    slicer_host.pump(lambda: bool(ends))
    [(airways, message)] = ends
    assert airways is not None and message == ""
    mine = [ct, ct.GetImageData(), airways, airways.GetSegmentation(), nodes.companion(airways, nodes.INITIAL)]
    for number, one in enumerate(mine):
        one.AddObserver(vtk.vtkCommand.DeleteEvent, lambda caller, event, number=number: freed.append(number))
    del ct, airways, mine, one
    ends.clear()
    slicer.mrmlScene.Clear(0)
    gc.collect()
    assert sorted(freed) == [0, 1, 2, 3, 4]


def test_no_timer_stays_behind(a_logic, slicer_host):
    ct, _mask = scenes.a_ct()
    ends = []
    a_logic.startSegment(ct, segmentation.SegmentOptions(), jobs.Listener(lambda *end: ends.append(end)))
    slicer_host.pump(lambda: bool(ends))
    assert not slicer_host.single_shots


# The end of a run ----------------------------------------------------------------------------------------------------


def test_a_run_that_is_cancelled_with_a_reason_ends_with_it(a_logic, slicer_host, monkeypatch):
    monkeypatch.setenv("AIRWAYSEG_STAND_IN", "slow")
    steps, ends = [], []
    listener = jobs.Listener(lambda *end: ends.append(end), lambda *step: steps.append(step))
    ct, _mask = scenes.a_ct()
    a_logic.startSegment(ct, segmentation.SegmentOptions(), listener)
    slicer_host.pump(lambda: bool(steps))
    a_logic.runs.cancel("airways", "CT was removed from the scene.")
    slicer_host.pump(lambda: bool(ends))
    assert ends == [(None, "CT was removed from the scene.")] and not a_logic.runs.is_running("airways")


def test_a_run_that_is_cancelled_before_its_command_starts_ends_with_the_reason(a_logic, slicer_host, monkeypatch):
    monkeypatch.setattr("AirwaySegSlicer.commands.nrrd_writer.PIECE", 50_000)
    ends = []
    ct, _mask = scenes.a_ct()
    a_logic.startSegment(ct, segmentation.SegmentOptions(), jobs.Listener(lambda *end: ends.append(end)))
    a_logic.runs.cancel("airways", "CT was removed from the scene.")
    slicer_host.pump(lambda: bool(ends))
    assert ends == [(None, "CT was removed from the scene.")] and not slicer_host.children


def test_a_listener_that_fails_does_not_keep_the_slot(a_logic, slicer_host):
    def fail(stage, done, total):
        raise KeyError("in a listener")

    ends = []
    ct, _mask = scenes.a_ct()
    options = segmentation.SegmentOptions(measure=False)
    a_logic.startSegment(ct, options, jobs.Listener(lambda *end: ends.append(end), fail))
    with pytest.raises(KeyError):
        slicer_host.pump(lambda: bool(ends))
    slicer_host.pump(lambda: bool(ends))
    assert ends[0][1] == "" and not a_logic.runs.is_running("airways")


def test_work_that_is_waited_for_has_no_event_loop(a_logic):
    ct, mask = scenes.a_ct()
    airways = a_logic.segment(ct, measure=False)
    segment = slicer.util.arrayFromSegmentBinaryLabelmap(airways, "airways", ct)
    assert np.array_equal(segment != 0, mask)
