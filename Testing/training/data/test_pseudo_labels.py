"""Cases from a real CT and an incomplete mask: what is sure, what is left out, what is refused."""

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.ndimage import binary_dilation, gaussian_filter

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.files.volume import Volume, read_on_grid
from AirwaySegTraining.data.pseudo_labels import dark_spots, doubtful_label, is_wall, pseudo_case


@pytest.fixture
def an_incomplete_mask(a_chest) -> np.ndarray:
    """The right side of the airways and only the lower half of the trachea."""
    mask = a_chest.trachea | a_chest.bronchi
    mask[75:] = False
    return mask.astype(np.uint8)


def test_the_mask_is_airway_and_what_it_misses_of_the_trachea_is_left_out(a_chest, a_quiet_chest, an_incomplete_mask):
    ct = Volume(a_quiet_chest, a_chest.spacing_mm)
    label, box = doubtful_label(ct, an_incomplete_mask)
    known = an_incomplete_mask[box] > 0
    assert np.array_equal(label == 1, known)
    missed = (a_chest.trachea & (an_incomplete_mask == 0))[box]
    assert (label[missed] == 2).mean() > 0.99
    assert (label[~a_chest.body[box]] == 0).all()


def test_tissue_in_the_mask_is_no_airway(a_chest, a_quiet_chest, an_incomplete_mask):
    too_wide = an_incomplete_mask.copy()
    too_wide[60, 40:60, 60:110] = 1
    label, box = doubtful_label(Volume(a_quiet_chest, a_chest.spacing_mm), too_wide)
    assert not (label[a_quiet_chest[box] > -500] == 1).any()


def a_walled_tube(wall_hu: int) -> Volume:
    """A tube of 2 mm radius with a wall of 1 mm in a lung, blurred as by a scanner."""
    z, y, x = np.indices((16, 40, 40))
    radius = np.hypot(y - 20, x - 20) * 0.7
    hu = np.select([radius < 2.1, radius < 3.2], [-990, wall_hu], -880).astype(np.float32)
    return Volume(gaussian_filter(hu, (0, 0.7, 0.7)).astype(np.int16), (1.0, 0.7, 0.7))


@pytest.mark.parametrize("wall_hu", [-300, 40])
def test_a_wall_is_background_and_the_lumen_beside_the_mask_is_left_out(wall_hu):
    tube = a_walled_tube(wall_hu)
    radius = np.hypot(*(np.indices((40, 40)) - 20)) * 0.7
    too_narrow = np.broadcast_to(radius < 1.4, tube.array.shape)
    wall = is_wall(tube.array, too_narrow, tube.spacing_mm)[8]
    assert wall[(radius > 2.2) & (radius < 2.6)].all()
    assert not wall[radius < 1.9].any()


def test_a_mask_that_lies_on_the_wall_is_left_out_there(a_chest, a_quiet_chest, an_incomplete_mask):
    blurred = gaussian_filter(a_quiet_chest.astype(np.float32), 0.8).astype(np.int16)
    ct = Volume(blurred, a_chest.spacing_mm)
    too_wide = binary_dilation(an_incomplete_mask > 0)
    label, box = doubtful_label(ct, too_wide)
    wall = is_wall(blurred[box], too_wide[box], ct.spacing_mm)
    assert (wall & too_wide[box]).any()
    assert (label[wall & too_wide[box]] == 2).all()


def test_a_dark_tube_in_the_lung_is_a_dark_spot_and_its_surroundings_are_not():
    hu = np.full((40, 60, 60), -850, np.int16)
    hu[:, 28:31, 28:31] = -980
    hu[:, 32:36, 28:31] = 40  # its artery
    spots = dark_spots(hu, np.ones(hu.shape, bool), (1.0, 0.7, 0.7))
    assert spots[20, 29, 29]
    assert not spots[:, 45:, 45:].any() and not spots[20, 33, 29]


def test_a_case_holds_the_ct_of_the_labels_box(a_chest, a_quiet_chest, an_incomplete_mask):
    ct = Volume(a_quiet_chest, a_chest.spacing_mm)
    case = pseudo_case(ct, an_incomplete_mask, "a test")
    assert case.ct.shape == case.label.shape and case.description["clean"] is False
    assert np.median(case.ct[case.label == 1]) == -950


def test_a_mask_on_another_grid_is_refused(a_chest, tmp_path):
    path = tmp_path / "mask.nrrd"
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((20, 20, 20), np.uint8)), str(path))
    with pytest.raises(AirwaySegError, match="not on the grid of the CT"):
        read_on_grid(path, Volume(a_chest.hu, a_chest.spacing_mm))
