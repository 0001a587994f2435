"""Phantoms that several tests share: a small chest whose every part is known."""

import importlib
import locale
import os
import sys
from dataclasses import dataclass

import numpy as np
import pytest

LOCALE = locale.setlocale(locale.LC_ALL)

# PyTorch looks for Triton, which brings an LLVM of its own; beside the one that draws offscreen it ends the process.
sys.modules.setdefault("triton", None)

NEED_SLICER = ["module/*", "slicerhost/tests/*"]


def why_no_slicer() -> str:
    """Why Slicer's window cannot be stood in for on this computer; empty if it can."""
    for package in ("slicer", "PySide6.QtWidgets"):
        try:
            importlib.import_module(package)
        except ImportError as error:
            return f"{package} cannot be imported ({error})"
    return ""


WITHOUT_SLICER = why_no_slicer()
collect_ignore_glob = NEED_SLICER if WITHOUT_SLICER else []
if not WITHOUT_SLICER:
    import slicerhost  # makes importable what Slicer's own Python files bring


def pytest_report_header() -> list[str]:
    """What is not tested here, and why."""
    return [f"{WITHOUT_SLICER}: {', '.join(NEED_SLICER)} are left out"] if WITHOUT_SLICER else []


@pytest.fixture(autouse=True)
def the_locale_of_the_start() -> None:
    """C++ libraries set the process's locale to C, and what a child process prints is then decoded as ASCII."""
    locale.setlocale(locale.LC_ALL, LOCALE)


SPACING_MM = (2.5, 1.6, 1.6)


@dataclass(frozen=True)
class Chest:
    """A drawn chest on a canonical grid (z upwards, y backwards, x to the left): HU int16 and masks bool (Z, Y, X)."""

    hu: np.ndarray
    spacing_mm: tuple[float, float, float]
    body: np.ndarray
    lungs: np.ndarray
    trachea: np.ndarray
    bronchi: np.ndarray
    carina_mm: float

    @property
    def height_mm(self) -> np.ndarray:
        """Height of each slice above the lowest, (Z,)."""
        return np.arange(len(self.hu)) * self.spacing_mm[0]


def draw_chest(lumen_hu: int = -950, noise_hu: float = 20, offset_hu: int = 0, glottis_mm: float = 0) -> Chest:
    """Draw a chest of 250 x 176 x 288 mm: an elliptic body on a table, two lungs, a trachea with its carina 120 mm up.

    The trachea has a radius of 9 mm and reaches the top; with a glottis it ends 25 mm below the top in a slit so wide,
    with a wide pharynx above. A flat air-filled oesophagus runs behind it, and gas lies in the stomach.
    """
    shape = (100, 110, 180)
    z, y, x = (
        axis.astype(np.float32) * step
        for axis, step in zip(np.meshgrid(*map(np.arange, shape), indexing="ij", sparse=True), SPACING_MM, strict=True)
    )
    x, y = x - 143, y - 80  # the middle of the body
    body = (x / 125) ** 2 + (y / 70) ** 2 <= 1
    body = np.broadcast_to(body, shape).copy()
    half_lung = [((x - side * 70) / 40) ** 2 + (y / 52) ** 2 + ((z - 110) / 100) ** 2 <= 1 for side in (-1, 1)]
    lungs = half_lung[0] | half_lung[1]
    carina_mm, radius = 120.0, 9.0
    trachea = ((x + 4) ** 2 + (y + 5) ** 2 <= radius**2) & (z >= carina_mm)
    side_mm = np.clip(carina_mm - z, 0, 50) * 0.7
    bronchi = np.zeros(shape, bool)
    for side in (-1, 1):
        inside = ((x + 4 - side * (5 + side_mm)) / 1.3) ** 2 + (y + 5) ** 2 <= 6.5**2
        bronchi |= inside & (z < carina_mm) & (z > carina_mm - 50)
    hu = np.full(shape, -1000, np.float32)
    hu[np.broadcast_to((np.abs(y - 84) < 5) & (np.abs(x) < 130), shape)] = 50  # table
    hu[body] = 40
    hu[lungs] = -860
    hu[(((x + 2) / 9) ** 2 + ((y - 18) / 3) ** 2 <= 1) & (z > 0)] = -900  # oesophagus
    hu[((x - 50) / 35) ** 2 + ((y + 30) / 20) ** 2 + (z / 12) ** 2 <= 1] = -1000  # stomach
    walls = ((x + 4) ** 2 + (y + 5) ** 2 <= (radius + 2) ** 2) & (z >= carina_mm)
    hu[walls] = 30
    if glottis_mm:
        top_mm = (shape[0] - 1) * SPACING_MM[0]
        slit = (np.abs(x + 4) < glottis_mm / 2) & (np.abs(y + 5) < 9) & (z > top_mm - 25)
        pharynx = (np.abs(x + 4) < 20) & (np.abs(y + 5) < 12) & (z > top_mm - 15)
        trachea = trachea & (z <= top_mm - 25)
        hu[slit | pharynx] = lumen_hu
    hu[trachea | bronchi] = lumen_hu
    hu += np.random.default_rng(3).normal(0, noise_hu, shape).astype(np.float32) + offset_hu
    return Chest(np.rint(hu).astype(np.int16), SPACING_MM, body, lungs, trachea, bronchi, carina_mm)


@pytest.fixture(scope="session")
def a_chest() -> Chest:
    """The drawn chest; tests must not change its arrays."""
    return draw_chest()


@pytest.fixture(scope="session")
def a_quiet_chest(a_chest: Chest) -> np.ndarray:
    """HU of the drawn chest without noise, for a stand-in that looks at single voxels."""
    hu = np.where(a_chest.hu > -500, 40, np.where(a_chest.lungs, -860, -1000))
    return np.where(a_chest.trachea | a_chest.bronchi, -950, hu).astype(np.int16)


@pytest.fixture
def one_thread(monkeypatch):
    """Threads that wait for each other are slow where a test has not the machine to itself."""
    import torch

    before = torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class DarkIsAirway:
    """A backend that is sure of every voxel below -920 HU."""

    batch = 1

    def run(self, windows: np.ndarray) -> np.ndarray:
        """(B, 1, Z, Y, X) in [0, 1] -> 0 or 1."""
        return (windows < (-920 + 1000) / 1600).astype(np.float32)


@pytest.fixture
def slicer_host(monkeypatch):
    """Slicer's stand-in with an empty scene; what a slot or an observer raised, unseen by the user, fails the test.

    Optional packages are not offered, so that it does not matter whether this Python has them.
    """
    host = slicerhost.start()
    host.clear()
    monkeypatch.setattr("AirwaySegSlicer.commands.dependencies.offer_packages", lambda *arguments: None)
    yield host
    host.check()
    host.clear()


@pytest.fixture(scope="session")
def kept_measures(tmp_path_factory) -> str:
    """A folder in which the results of the real `airwayseg measure` are kept for the next test."""
    return str(tmp_path_factory.mktemp("kept"))


@pytest.fixture
def a_desk(slicer_host, kept_measures, tmp_path, monkeypatch):
    """The module's panel beside a drawn CT; commands that need the network are stand-ins."""
    from module_desk import Desk
    from module_scenes import a_ct, python_slicer

    monkeypatch.setenv("AIRWAYSEG_KEPT", kept_measures)
    monkeypatch.setenv("PATH", python_slicer(tmp_path, stand_ins=True), prepend=os.pathsep)
    return Desk(slicer_host, *a_ct())


@pytest.fixture
def a_measured_desk(a_desk):
    """The panel with a measured result."""
    assert a_desk.segment() is not None and not a_desk.host.messages
    return a_desk


@pytest.fixture
def a_review(a_desk, tmp_path):
    """The panel with a result that is to be reviewed; see `module_review.reviewed`."""
    from module_review import reviewed

    return reviewed(a_desk, tmp_path / "result")
