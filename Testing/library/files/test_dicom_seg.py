"""DICOM Segmentations: read back by other programs they are the mask, at its position, of the same patient."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from studies import SMALL_MM, image_of, save_series

from AirwaySegLib.commands.dicom_out import write_result_as_dicom
from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.files.dicom_seg import Segment, write_dicom_seg

UID = "1.2.826.0.1.3680043.2.1125.1"


@pytest.fixture
def a_series(a_quiet_chest, tmp_path) -> Path:
    """Thirty slices of the small chest with a patient, a study and a frame of reference."""
    pytest.importorskip("highdicom")
    tags = {
        "0020|000e": UID,
        "0020|000d": "1.2.826.0.1.3680043.2.1125.2",
        "0020|0052": "1.2.826.0.1.3680043.2.1125.3",
        "0010|0010": "Doe^Jane",
        "0010|0020": "P1",
        "0008|0020": "20200101",
        "0008|0016": "1.2.840.10008.5.1.4.1.1.2",
    }
    return save_series(tmp_path / "ct", a_quiet_chest[40:70, ::2, ::2], tags)


@pytest.fixture
def a_mask(a_chest) -> np.ndarray:
    return (a_chest.trachea | a_chest.bronchi)[40:70, ::2, ::2]


def test_the_segments_are_read_back_by_simpleitk_and_pydicom(a_series, a_mask, tmp_path):
    import pydicom

    upper = a_mask.copy()
    upper[:15] = False
    segments = [Segment("Airways", a_mask), Segment("Bronchi of the left upper lobe", upper, "left upper lobe")]
    write_dicom_seg(tmp_path / "seg.dcm", segments, a_series, UID, ())
    made, first = pydicom.dcmread(tmp_path / "seg.dcm"), pydicom.dcmread(sorted(a_series.iterdir())[0])
    for name in ("PatientID", "PatientName", "StudyInstanceUID", "FrameOfReferenceUID", "StudyDate"):
        assert made[name].value == first[name].value
    assert made.Modality == "SEG" and made.SeriesInstanceUID != UID
    assert made.ReferencedSeriesSequence[0].SeriesInstanceUID == UID
    codes = [item.SegmentedPropertyTypeCodeSequence[0].CodeValue for item in made.SegmentSequence]
    assert codes == ["110726009", "955009"]
    assert made.SegmentSequence[1].AnatomicRegionSequence[0].CodeValue == "44714003"
    assert np.count_nonzero(made.pixel_array) == a_mask.sum() + upper.sum()
    found = np.zeros((2, *a_mask.shape), bool)
    for item, frame in zip(made.PerFrameFunctionalGroupsSequence, made.pixel_array, strict=True):
        height = float(item.PlanePositionSequence[0].ImagePositionPatient[2])
        number = item.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        found[number - 1, round((height - 30) / SMALL_MM[0])] = frame
    assert np.array_equal(found[0], a_mask) and np.array_equal(found[1], upper)


def test_simpleitk_reads_the_mask_at_its_position(a_series, a_mask, tmp_path):
    write_dicom_seg(tmp_path / "seg.dcm", [Segment("Airways", a_mask)], a_series, UID, ())
    image = sitk.DICOMOrient(sitk.ReadImage(str(tmp_path / "seg.dcm")), "LPS")
    assert image.GetSpacing() == pytest.approx(SMALL_MM[::-1]) and image.GetOrigin() == (-140.0, -90.0, 30.0)
    # GDCM sets bits behind the last voxel where their number is no multiple of 8.
    assert np.array_equal(sitk.GetArrayFromImage(image) == 255, a_mask)


def test_the_same_segments_get_the_same_identifiers_and_others_get_others(a_series, a_mask, tmp_path):
    import pydicom

    identifiers = []
    for number, mask in enumerate((a_mask, a_mask, a_mask & (np.arange(30) > 9)[:, None, None])):
        write_dicom_seg(tmp_path / f"{number}.dcm", [Segment("Airways", mask)], a_series, UID, ())
        identifiers.append(pydicom.dcmread(tmp_path / f"{number}.dcm").SOPInstanceUID)
    assert identifiers[0] == identifiers[1] != identifiers[2]


def test_a_mask_of_another_size_is_refused(a_series, a_mask, tmp_path):
    with pytest.raises(AirwaySegError, match="has not the size of the DICOM series"):
        write_dicom_seg(tmp_path / "seg.dcm", [Segment("Airways", a_mask[:20])], a_series, UID, ())
    assert not (tmp_path / "seg.dcm").exists()


def test_no_patient_is_invented_for_a_ct_that_is_not_dicom(a_mask, tmp_path):
    sitk.WriteImage(image_of(a_mask.astype(np.int16)), str(tmp_path / "ct.nrrd"))
    with pytest.raises(AirwaySegError, match="invented patient data"):
        write_result_as_dicom(tmp_path, tmp_path / "ct.nrrd", "", (), lobes=False)
