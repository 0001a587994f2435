"""Open lumens on drawn airways in lung and tissue: what is wide and has a wall is grown, and nothing else."""

from dataclasses import dataclass

import numpy as np
import pytest
from scipy import ndimage
from support.phantoms import Tube, draw_tubes

from AirwaySegLib.chest.open_lumen import open_lumen

SPACING_MM = (1.0, 0.8, 0.8)
SHAPE = (130, 90, 160)
AIR_HU, WALL_HU, LUNG_HU, TISSUE_HU = -960, -100, -860, 40

TRACHEA = Tube((129.0, 36.0, 64.0), (95.0, 36.0, 64.0), 8.0, 8.0, round_ends=False)
RIGHT_MAIN = Tube((95.0, 36.0, 64.0), (70.0, 36.0, 38.0), 6.0, 5.5)
LEFT_MAIN = Tube((95.0, 36.0, 64.0), (70.0, 36.0, 90.0), 6.0, 5.5)
WIDE = Tube((70.0, 36.0, 38.0), (25.0, 40.0, 28.0), 3.5, 2.5)
NARROW = Tube((70.0, 36.0, 90.0), (30.0, 36.0, 110.0), 0.9, 0.9)
"""Too narrow to be entered at any threshold."""


@dataclass(frozen=True)
class Drawn:
    """HU int16, the lumens by name, and the trachea's voxels (N, 3)."""

    hu: np.ndarray
    lumen: dict[str, np.ndarray]

    @property
    def trachea(self) -> np.ndarray:
        """Of the drawn trachea."""
        return np.argwhere(self.lumen["trachea"])

    @property
    def all_lumens(self) -> np.ndarray:
        """Every lumen."""
        return np.logical_or.reduce(list(self.lumen.values()))


def _draw(noise_hu: float = 15.0, around_hu: int = LUNG_HU, **others: Tube) -> Drawn:
    """The five tubes and others, each with a wall of 1.5 mm, in lung; the trachea's half is tissue."""
    tubes = {"trachea": TRACHEA, "right": RIGHT_MAIN, "left": LEFT_MAIN, "wide": WIDE, "narrow": NARROW, **others}
    hu = np.full(SHAPE, around_hu, np.float32)
    hu[85:] = TISSUE_HU
    lumen = {}
    for tube in tubes.values():
        wall = Tube(tube.start_mm, tube.end_mm, tube.start_radius_mm + 1.5, tube.end_radius_mm + 1.5)
        hu[draw_tubes([wall], SHAPE, SPACING_MM)] = WALL_HU
    for name, tube in tubes.items():
        lumen[name] = draw_tubes([tube], SHAPE, SPACING_MM)
        hu[lumen[name]] = AIR_HU
    hu = ndimage.gaussian_filter(hu, 0.5)
    hu += np.random.default_rng(5).normal(0, noise_hu, SHAPE)
    return Drawn(np.rint(hu).astype(np.int16), lumen)


def _grown(drawn: Drawn, hu: np.ndarray | None = None) -> np.ndarray:
    hu = drawn.hu if hu is None else hu
    return open_lumen(hu, np.ones(SHAPE, bool), drawn.trachea, SPACING_MM).mask


@pytest.mark.parametrize(("noise_hu", "around_hu"), [(10, LUNG_HU), (50, LUNG_HU), (15, -940), (15, TISSUE_HU)])
def test_wide_lumens_are_grown_in_lung_emphysema_and_consolidation_and_nothing_else(noise_hu, around_hu):
    drawn = _draw(noise_hu, around_hu)
    mask = _grown(drawn)
    below = drawn.lumen["wide"] & ~drawn.lumen["right"]
    below[:35] = False  # near the end
    assert mask[below].mean() > 0.9
    assert mask[drawn.lumen["left"] & ~drawn.lumen["trachea"]][:-200].mean() > 0.8
    assert not (mask & ~ndimage.binary_dilation(drawn.all_lumens)).any()
    assert not mask[:60][drawn.lumen["narrow"][:60]].any()


def test_a_hole_in_the_wall_is_no_way_into_the_lung():
    drawn = _draw()
    hole = draw_tubes([Tube((50.0, 38.0, 33.0), (50.0, 50.0, 33.0), 2.5, 2.5)], SHAPE, SPACING_MM)
    hu = drawn.hu.copy()
    hu[hole & ~drawn.all_lumens] = AIR_HU + 40
    mask = _grown(drawn, hu)
    assert mask[drawn.lumen["wide"]][-400:].any() and mask[55:65][drawn.lumen["wide"][55:65]].mean() > 0.8
    assert (mask & ~ndimage.binary_dilation(drawn.all_lumens, iterations=2)).sum() * np.prod(SPACING_MM) < 60


def test_a_bulla_at_the_end_of_a_bronchus_is_refused_and_the_bronchus_is_kept():
    drawn = _draw(bulla=Tube((14.0, 40.0, 28.0), (12.0, 40.0, 28.0), 12.0, 12.0))
    assert (drawn.lumen["wide"] & drawn.lumen["bulla"]).any()
    mask = _grown(drawn)
    assert mask[40:60][drawn.lumen["wide"][40:60]].mean() > 0.8
    assert mask[drawn.lumen["bulla"] & ~drawn.lumen["wide"]].mean() < 0.05


def test_gas_in_the_oesophagus_is_not_entered_through_a_gap_to_the_trachea():
    gas = Tube((129.0, 52.0, 64.0), (60.0, 52.0, 64.0), 4.0, 4.0)
    drawn = _draw(oesophagus=gas)
    gap = draw_tubes([Tube((120.0, 42.0, 64.0), (120.0, 54.0, 64.0), 2.0, 2.0)], SHAPE, SPACING_MM)
    hu = drawn.hu.copy()
    hu[gap] = AIR_HU
    assert not _grown(drawn, hu)[drawn.lumen["oesophagus"]].any()


def test_lung_below_the_trachea_without_any_bronchus_gives_nothing():
    hu = np.random.default_rng(2).normal(-870, 60, SHAPE)
    trachea = draw_tubes([TRACHEA], SHAPE, SPACING_MM)
    hu[95:] = TISSUE_HU
    hu[trachea] = AIR_HU
    lumen = open_lumen(np.rint(hu).astype(np.int16), np.ones(SHAPE, bool), np.argwhere(trachea), SPACING_MM)
    assert not lumen.mask.any() and not len(lumen.places)


def test_without_a_trachea_nothing_is_grown():
    drawn = _draw()
    assert not open_lumen(drawn.hu, np.ones(SHAPE, bool), np.empty((0, 3), np.intp), SPACING_MM).mask.any()


def test_only_what_a_tree_lacks_is_new_and_its_length_is_told():
    drawn = _draw()
    lumen = open_lumen(drawn.hu, np.ones(SHAPE, bool), drawn.trachea, SPACING_MM)
    ragged = drawn.all_lumens & ndimage.binary_erosion(drawn.all_lumens)
    assert not lumen.beyond(drawn.all_lumens, SPACING_MM).any()
    assert not lumen.beyond(ragged, SPACING_MM).any()
    missed = drawn.lumen["wide"].copy()
    missed[60:] = False
    new = lumen.beyond(drawn.all_lumens & ~missed, SPACING_MM)
    assert (new & ~missed).sum() <= 0.1 * new.sum() and new[missed].mean() > 0.6
    length_mm = 60 - np.argwhere(new)[:, 0].min()
    assert abs(lumen.length_in_mm(new) - length_mm) < 6
