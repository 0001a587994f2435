"""Cases from a real CT and an incomplete mask: what is sure, what is left out, what is refused."""

import numpy as np
import pytest
import SimpleITK as sitk

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.files.volume import Volume, read_on_grid
from AirwaySegTraining.data.pseudo_labels import dark_spots, doubtful_label, pseudo_case


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
