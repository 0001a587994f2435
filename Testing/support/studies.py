"""Folders of a study as researchers have them: small CTs in mixed formats and nesting, DICOM with its tags."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk

SMALL_MM = (2.5, 3.2, 3.2)
"""Spacing (z, y, x) of `small_chest`."""


def small_chest(hu: np.ndarray, seed: int = 0) -> np.ndarray:
    """Every second pixel of the drawn chest (100 x 110 x 180 voxels) -> (100, 55, 90) int16; each seed differs."""
    small = hu[:, ::2, ::2].copy()
    small[0, 0, : 1 + seed % 90] += 1 + seed // 90
    return small


def image_of(hu: np.ndarray, spacing_mm: tuple[float, float, float] = SMALL_MM) -> sitk.Image:
    """A CT as an image."""
    image = sitk.GetImageFromArray(hu)
    image.SetSpacing(spacing_mm[::-1])
    return image


def save_series(
    folder: Path, hu: np.ndarray, tags: dict[str, str], spacing_mm: tuple[float, float, float] = SMALL_MM
) -> Path:
    """Write a CT as DICOM slices; ``tags`` such as {"0020|000e": UID} are put into each of them."""
    folder.mkdir(parents=True, exist_ok=True)
    writer = sitk.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.KeepOriginalImageUIDOn()
    uid = tags["0020|000e"]
    for number, plane in enumerate(hu):
        image = sitk.GetImageFromArray(plane[None])
        image.SetSpacing(spacing_mm[::-1])
        own = {
            "0008|0008": "ORIGINAL\\PRIMARY\\AXIAL",
            "0008|0016": "1.2.840.10008.5.1.4.1.1.2",
            "0008|0018": f"{uid}.{number}",
            "0008|0060": "CT",
            "0020|000d": "1.2",
            "0020|0011": "2",
            "0020|0013": str(number + 1),
            "0020|0032": f"-140\\-90\\{30 + spacing_mm[0] * number:g}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
            "0020|0052": "1.2.9",
            "0028|1052": "-1024",
            "0028|1053": "1",
        }
        for tag, value in (own | tags).items():
            image.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{uid}_{number:03d}.dcm"))
        writer.Execute(image)
    return folder


def save_study(folder: Path, hu: np.ndarray, count: int, broken: int) -> list[str]:
    """Write ``count`` small CTs, the last ``broken`` of which cannot be read; return the ids that a search gives them.

    Every fourth is DICOM; the others are NIfTI, NRRD and MetaImage files in folders of different depth.
    """
    names = []
    for number in range(count):
        chest = small_chest(hu, number)
        place = folder / f"site{number % 3}" / ("deep/er" if number % 2 else "")
        if number % 4 == 3:
            tags = {"0020|000e": f"1.2.{number + 10}", "0010|0020": f"P{number:03d}", "0008|0020": "20200101"}
            target = save_series(place / f"ct{number:02d}", chest, tags)
            victim = sorted(target.iterdir())[50]
        else:
            extension = (".nii.gz", ".nrrd", ".mha")[number % 4]
            place.mkdir(parents=True, exist_ok=True)
            victim = target = place / f"ct{number:02d}{extension}"
            sitk.WriteImage(image_of(chest), str(target), useCompression=True)
        if number >= count - broken:
            victim.write_bytes(victim.read_bytes()[:-3000])
        name = target.name.split(".")[0]
        names.append("_".join([*target.relative_to(folder).parts[:-1], name]))
    return names
