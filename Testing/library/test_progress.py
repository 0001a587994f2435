"""What the command line shows of long work."""

import io
import json

import pytest

from AirwaySegLib import progress
from AirwaySegLib.progress import Bar, JsonLines


@pytest.fixture
def a_clock(monkeypatch):
    """A clock that stands until it is set."""

    class Clock:
        seconds = 100.0

    monkeypatch.setattr(progress.time, "monotonic", lambda: Clock.seconds)
    return Clock


def _lines(stream: io.StringIO) -> list[float | None]:
    return [json.loads(line)["seconds_left"] for line in stream.getvalue().splitlines()]


def test_the_time_left_is_that_of_the_steps_that_are_left(a_clock):
    show = JsonLines(stream := io.StringIO())
    show("infer", 0, 4)
    for done in (1, 2, 3, 4):
        a_clock.seconds += 10
        show("infer", done, 4)
    assert _lines(stream) == [None, 30.0, 20.0, 10.0, 0.0]


def test_what_was_done_before_a_resume_says_nothing_of_the_speed(a_clock):
    show = JsonLines(stream := io.StringIO())
    show("train", 900, 1000)
    a_clock.seconds += 2
    show("train", 901, 1000)
    assert _lines(stream) == [None, 198.0]


def test_each_stage_has_its_own_speed(a_clock):
    show = JsonLines(stream := io.StringIO())
    show("read", 1, 1)
    a_clock.seconds += 500
    show("train", 50, 60)
    a_clock.seconds += 1
    show("train", 55, 60)
    assert _lines(stream) == [0.0, None, 1.0]


def test_a_bar_of_a_resumed_stage_begins_where_that_stands():
    show = Bar()
    show("train", 900, 1000)
    assert show._bar is not None and show._bar.initial == show._bar.n == 900
    show("train", 901, 1000)
    assert show._bar.n == 901 and show._bar.initial == 900
    show.close()
