"""Which windows the network runs: fitted to the region, after a first look at half the resolution."""

import math
from dataclasses import replace

import numpy as np
import pytest

from AirwaySegLib.networks import first_look, speed
from AirwaySegLib.networks.first_look import halved_image, halved_region, worth_looking
from AirwaySegLib.networks.search import Area, fitted_windows, search, windows_of, work
from AirwaySegLib.networks.weights import ModelInfo
from AirwaySegLib.networks.windows import Sliding, Windows, count_windows, fitted, voxels_run
from AirwaySegLib.progress import silent
from AirwaySegLib.settings import SegmentSettings

INFO = ModelInfo("test", norm="batch", patch_zyx=(32, 32, 32))
SETTINGS = SegmentSettings(first_look="yes")
NOWHERE = np.empty((0, 3), np.intp)


class Bright:
    """A network that is sure of every bright voxel; remembers the windows' sides."""

    batch = 1

    def __init__(self) -> None:
        self.sides: list[tuple[int, ...]] = []

    def run(self, windows: np.ndarray) -> np.ndarray:
        self.sides.append(windows.shape[2:])
        return (windows > 0.4).astype(np.float32)


def a_tube() -> tuple[np.ndarray, np.ndarray]:
    """A scan (1, Z, Y, X) with a bright tube in a corner of a large region."""
    image, region = np.zeros((1, 72, 130, 90), np.float32), np.zeros((72, 130, 90), bool)
    region[4:70, 3:125, 5:85] = True
    image[0, 10:50, 20:26, 20:26] = 1
    return image, region


# Windows that fit -----------------------------------------------------------------------------------------------------


def test_fitted_windows_need_fewer_voxels_and_overlap_no_less() -> None:
    region = np.ones((265, 240, 300), bool)
    plain = Sliding((128, 128, 128), 0.125, "gaussian")
    fit = fitted(plain, region, 8)
    assert voxels_run(region.shape, fit, region) < 0.7 * voxels_run(region.shape, plain, region)
    assert math.prod(fit.patch_zyx) <= 128**3 and all(side % 8 == 0 for side in fit.patch_zyx)
    for starts, side in zip(fit.starts(region.shape), fit.patch_zyx, strict=True):
        assert all(first + side - second >= 16 for first, second in zip(starts, starts[1:], strict=False))


@pytest.mark.parametrize("shape", [(3, 20, 9), (99, 396, 476), (16, 128, 600)])
def test_fitted_windows_cover_every_voxel_of_the_region(shape: tuple[int, int, int]) -> None:
    fit = fitted(Sliding((64, 64, 64), 0.25), np.ones(shape, bool), 8)
    padded = [max(size, side) for size, side in zip(shape, fit.patch_zyx, strict=True)]
    windows, seen = Windows(padded, fit), np.zeros(padded, bool)
    for row in windows.rows:
        for corner in row:
            seen[windows.box(corner)] = True
    assert seen.all() and sum(map(len, windows.rows)) == count_windows(shape, fit, None)


def test_windows_with_statistics_of_their_own_keep_their_size_and_overlap() -> None:
    region = np.ones((50, 40, 70), bool)
    assert fitted_windows(INFO, SegmentSettings(), region) == windows_of(INFO, SegmentSettings())
    info = replace(INFO, norm="instance")
    assert fitted_windows(info, SETTINGS, region) == windows_of(info, SETTINGS)
    assert windows_of(info, SegmentSettings(overlap=0.5)) == Sliding((32, 32, 32), 0.5, "gaussian")


# The first look -------------------------------------------------------------------------------------------------------


def test_half_the_resolution_is_the_mean_of_eight_voxels_in_the_region() -> None:
    image, region = np.zeros((2, 5, 6, 7), np.float32), np.zeros((5, 6, 7), bool)
    region[1:4, 2:6, 1:7] = True
    image[0, 1:3, 2:4, 1:3] = 1
    image[1] = 0.5
    halved = halved_image(image, region)
    assert halved.shape == (2, 2, 2, 3) and halved_region(region).all()
    assert halved[0, 0, 0, 0] == 1 and halved[0].sum() == 1 and (halved[1] == 0.5).all()


def test_the_network_looks_where_an_airway_is_near(monkeypatch: pytest.MonkeyPatch) -> None:
    region = np.zeros((60, 40, 40), bool)
    region[2:58, :, :] = True
    probability = np.zeros((28, 20, 20), np.uint8)
    probability[3:9, 9:11, 9:11] = 200  # 24 voxels: an airway
    probability[25, 2:4, 2:4] = 200  # 4 voxels: noise
    monkeypatch.setattr(first_look, "REACH_MM", 10.0)
    near = worth_looking(probability, region, NOWHERE, (2.0, 1.0, 1.0))
    # Half voxels of 4 x 2 x 2 mm: two more rows up and down, five to the sides.
    assert near[4:24, 20, 20].all() and not near[:4, 20, 20].any() and not near[24:, 20, 20].any()
    assert near[12, 20, 8:32].all() and not near[12, 20, :8].any()
    assert not near[50:].any()
    certain = np.array([[55, 20, 20], [0, 0, 0]])
    assert worth_looking(probability, region, certain, (2.0, 1.0, 1.0))[55, 20, 20]


def test_a_first_look_spares_windows_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_look, "REACH_MM", 8.0)
    image, region = a_tube()
    trachea = np.array([[45, 22, 22]])
    area, steps = Area(region, trachea, (1.0, 1.0, 1.0)), []
    with_look, without = Bright(), Bright()
    probability, ran = search(image, with_look, area, INFO, SETTINGS, lambda *step: steps.append(step))
    whole, all_of_it = search(image, without, area, INFO, SegmentSettings(first_look="no"), silent)
    assert np.array_equal(probability, whole) and (probability == 255 * image[0]).all()
    assert ran["windows"] == len(with_look.sides) == steps[-1][1] == steps[-1][2]
    assert ran["windows_of_128"] < 0.7 * all_of_it["windows_of_128"] and set(without.sides) == {INFO.patch_zyx}
    assert [done for _, done, _ in steps] == sorted(done for _, done, _ in steps)
    count, windows = work(INFO, SETTINGS, area)
    assert count >= ran["windows"] and round(windows, 1) >= ran["windows_of_128"]


@pytest.mark.parametrize("why", ["no trachea", "statistics of the window"])
def test_without_a_trachea_or_free_windows_there_is_no_first_look(why: str) -> None:
    image, region = a_tube()
    certain = NOWHERE if why == "no trachea" else np.array([[45, 22, 22]])
    info = INFO if why == "no trachea" else replace(INFO, norm="instance")
    backend = Bright()
    area = Area(region, certain, (1.0, 1.0, 1.0))
    _, ran = search(image, backend, area, info, SETTINGS, silent)
    sliding = fitted_windows(info, SETTINGS, region)
    assert len(set(backend.sides)) == 1 and ran["windows"] == count_windows(region.shape, sliding, region)


# Speed ----------------------------------------------------------------------------------------------------------------


def test_the_time_of_a_window_is_that_of_a_small_one_times_eight(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter((10.0, 10.25))
    monkeypatch.setattr(speed.time, "perf_counter", lambda: next(ticks))
    backend = Bright()
    assert speed.window_seconds(backend, ModelInfo("mine", norm="batch")) == 2.0
    assert backend.sides == [(64, 64, 64)] * 2


def test_weights_of_one_window_size_are_timed_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter((10.0, 10.25))
    monkeypatch.setattr(speed.time, "perf_counter", lambda: next(ticks))
    backend = Bright()
    info = ModelInfo("mine", norm="instance", patch_zyx=(128, 64, 128))
    assert speed.window_seconds(backend, info) == 0.5 and backend.sides == [(128, 64, 128)] * 2


def test_a_time_for_people_is_rounded() -> None:
    assert [speed.about(one) for one in (0.2, 42, 99, 170)] == [
        "about 5 s",
        "about 40 s",
        "about 100 s",
        "about 3 min",
    ]
