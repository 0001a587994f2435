"""What the CT shows of a branch's wall and of the artery beside it, and of all branches together (Pi10), as data."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Wall:
    """The lumen, wall and artery of a branch as measured in the CT; None where a figure could not be measured.

    Parameters
    ----------
    inner_diameter_mm
        Of the circle with the lumen's area, by the wall's inner edge.
    thickness_mm
        Median over the usable rays of all cross-sections.
    usable_rays
        Share (0..1) of the rays on which the wall's outer edge borders on lung.
    lumen_rays
        Share (0..1) of the rays on which the lumen's edge was found.
    intra_tapering_percent_per_mm
        Loss of the inner diameter along the branch, in percent of its mean for each mm; negative if it widens.
    inter_tapering_percent
        How much smaller the inner diameter is than the parent's, in percent of the parent's.
    artery_diameter_mm, artery_sections
        Of the artery beside the branch, and the share (0..1) of the cross-sections that show it.
    """

    inner_diameter_mm: float | None = None
    thickness_mm: float | None = None
    usable_rays: float = 0.0
    lumen_rays: float = 0.0
    intra_tapering_percent_per_mm: float | None = None
    inter_tapering_percent: float | None = None
    artery_diameter_mm: float | None = None
    artery_sections: float = 0.0

    @property
    def outer_diameter_mm(self) -> float | None:
        """Inner diameter and twice the thickness."""
        if self.inner_diameter_mm is None or self.thickness_mm is None:
            return None
        return self.inner_diameter_mm + 2 * self.thickness_mm

    @property
    def lumen_area_mm2(self) -> float | None:
        """Area within the wall's inner edge."""
        return None if self.inner_diameter_mm is None else float(np.pi / 4 * self.inner_diameter_mm**2)

    @property
    def wall_area_mm2(self) -> float | None:
        """Area between the wall's edges."""
        if self.outer_diameter_mm is None or self.lumen_area_mm2 is None:
            return None
        return float(np.pi / 4 * self.outer_diameter_mm**2) - self.lumen_area_mm2

    @property
    def wall_area_fraction(self) -> float | None:
        """Wall area over wall and lumen area, 0..1."""
        if self.wall_area_mm2 is None or self.lumen_area_mm2 is None:
            return None
        return self.wall_area_mm2 / (self.wall_area_mm2 + self.lumen_area_mm2)

    @property
    def airway_artery_ratio(self) -> float | None:
        """Inner diameter over the artery's diameter."""
        if self.inner_diameter_mm is None or self.artery_diameter_mm is None:
            return None
        return self.inner_diameter_mm / self.artery_diameter_mm


WALL_MEASURES = (
    *("inner_diameter_mm", "outer_diameter_mm", "wall_thickness_mm", "lumen_area_mm2", "wall_area_mm2"),
    *("wall_area_fraction", "usable_rays", "lumen_rays", "intra_tapering_percent_per_mm", "inter_tapering_percent"),
    *("artery_diameter_mm", "airway_artery_ratio", "artery_sections"),
)
"""The names of `wall_measures`, in the order of the columns."""


def wall_measures(wall: Wall | None) -> dict[str, float | None]:
    """The figures of a branch by the names in `WALL_MEASURES`, rounded to 3 decimals; all None without a CT."""
    if wall is None:
        return dict.fromkeys(WALL_MEASURES)
    values = {name: getattr(wall, {"wall_thickness_mm": "thickness_mm"}.get(name, name)) for name in WALL_MEASURES}
    return {name: None if value is None else round(value, 3) for name, value in values.items()}


def wall_from_plain(plain: dict[str, Any]) -> Wall | None:
    """The wall of a branch from its `wall_measures`; None where there are none."""
    if plain.get("usable_rays") is None:
        return None

    def figure(name: str) -> float | None:
        return None if plain[name] is None else float(plain[name])

    return Wall(
        figure("inner_diameter_mm"),
        figure("wall_thickness_mm"),
        float(plain["usable_rays"]),
        float(plain["lumen_rays"]),
        figure("intra_tapering_percent_per_mm"),
        figure("inter_tapering_percent"),
        figure("artery_diameter_mm"),
        float(plain["artery_sections"]),
    )


@dataclass(frozen=True)
class Pi10:
    """The square root of the wall area at an inner perimeter of 10 mm, by a straight line through the branches.

    ``branches`` entered, and ``outliers`` far from the line were left out; their inner perimeters reach from
    ``least_perimeter_mm`` to ``most_perimeter_mm``. The line is ``intercept_mm`` + ``slope`` times the perimeter, with
    the correlation ``r``.
    """

    value_mm: float
    slope: float
    intercept_mm: float
    r: float
    branches: int
    outliers: int
    least_perimeter_mm: float
    most_perimeter_mm: float


@dataclass(frozen=True)
class WallScan:
    """What the walls were measured with: blur of the CT, densities in HU, a warning; and Pi10 (None: too few walls).

    ``blur_mm`` are the standard deviations of the blur within a slice and across slices. ``pi10_half_maximum`` is that
    of walls from half height to half height, as most published figures are; blur makes it larger.
    """

    blur_mm: tuple[float, float]
    air_hu: float
    wall_hu: float
    pi10: Pi10 | None = None
    pi10_half_maximum: Pi10 | None = None
    warning: str = ""

    def to_plain(self) -> dict[str, Any]:
        """Plain values for JSON, rounded to 3 decimals."""
        plain = asdict(self) | {"blur_mm": list(self.blur_mm)}
        return _rounded(plain)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_rounded(inner) for inner in value]
    return round(value, 3) if isinstance(value, float) else value


def wall_scan_from_plain(plain: dict[str, Any] | None) -> WallScan | None:
    """What `WallScan.to_plain` wrote."""
    if plain is None:
        return None
    within, across = plain["blur_mm"]
    pi10, half = (None if plain[name] is None else Pi10(**plain[name]) for name in ("pi10", "pi10_half_maximum"))
    densities = float(plain["air_hu"]), float(plain["wall_hu"])
    return WallScan((float(within), float(across)), *densities, pi10, half, str(plain["warning"]))
