"""Convolution kernels of CT scanners on one scale of sharpness, and how well a reconstruction suits airways."""

import re

BEST_SHARPNESS = 46
"""Moderately sharp, as B46f: COPDGene reconstructs its CTs with it to measure airways and with B31f for the lungs
(Regan et al. 2010, doi:10.3109/15412550903499522)."""

UNKNOWN_SHARPNESS = 36
ALL_THIN_MM = 1.25
"""Slices up to here are thin; the kernel decides between them."""

_NAMED = {  # about where Siemens' numbers would put them
    "soft": 20, "standard": 35, "chest": 40, "detail": 46, "lung": 60, "bone": 70, "boneplus": 75, "edge": 80,
    "a": 20, "b": 35, "c": 45, "d": 55, "l": 60, "e": 70, "ya": 50, "yb": 60, "yc": 65, "yd": 75,
}  # fmt: skip


def sharpness(kernel: str) -> float:
    """Siemens' number of a kernel (B31f is 31), or about the number that a kernel of another maker would have.

    GE's have names, Philips' one or two letters, Canon's (Toshiba's) FC and a number: FC01 to FC29 are soft to
    standard, FC30 to FC39 bone, FC50 to FC59 lung.
    """
    first = kernel.strip().split("\\")[0].strip().lower()
    canon = re.match(r"fc ?(\d\d)", first)
    if canon:
        number = int(canon[1])
        return 60.0 if 50 <= number < 60 else 70.0 if 30 <= number < 40 else 33.0
    siemens = re.match(r"[a-z]{1,3}(\d\d)", first)
    if siemens:
        return float(siemens[1])
    name = re.split(r"[^a-z]", first)[0] if first else ""
    return float(_NAMED.get(name, UNKNOWN_SHARPNESS))


def preference(slice_mm: float, kernel: str) -> tuple[float, float, float]:
    """A key that is smallest for the reconstruction that suits airways best: thin slices, then the kernel."""
    return max(round(slice_mm, 2), ALL_THIN_MM), abs(sharpness(kernel) - BEST_SHARPNESS), slice_mm
