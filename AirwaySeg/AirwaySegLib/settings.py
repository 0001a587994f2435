"""The settings of a segmentation: defaults, limits and help texts, once for command line, Slicer panel and report."""

from dataclasses import Field, dataclass, field, fields
from typing import Any

from AirwaySegLib.errors import AirwaySegError


def _setting(default: Any, meaning: str, **limits: Any) -> Any:
    return field(default=default, metadata={"meaning": meaning, **limits})


@dataclass(frozen=True)
class SegmentSettings:
    """How to segment. With ``threshold`` None, the threshold is chosen per scan so that the tree does not leak."""

    weights: str = _setting("default", "name of bundled or imported weights, or a .safetensors file")
    device: str = _setting("auto", "where the network runs", choices=("auto", "cpu", "cuda", "mps"))
    backend: str = _setting("auto", "library that runs the network on the CPU", choices=("auto", "torch", "openvino"))
    precision: str = _setting("auto", "number format of the network", choices=("auto", "float32", "bfloat16"))
    overlap: float = _setting(
        0.25,
        "least overlap of neighbouring windows, as a fraction of the side for which the weights were made",
        least=0.0,
        most=0.75,
    )
    first_look: str = _setting(
        "no",
        "whether a look at half the resolution decides where the network runs, in windows of a fitting size: two to "
        "three times less work for the network, but a few thin branches differ; for weights with batch normalisation",
        choices=("yes", "no"),
    )
    window_weights: str = _setting("gaussian", "how overlapping windows are averaged", choices=("gaussian", "constant"))
    threshold: float | None = _setting(None, "lowest probability of an airway voxel", least=0.05, most=0.95)
    open_lumen: str = _setting(
        "yes",
        "whether open lumens with a wall, grown from the trachea, are added to the airways",
        choices=("yes", "no"),
    )
    repair: str = _setting(
        "both", "method that joins loose fragments to the tree", choices=("both", "network", "path", "none")
    )
    repair_threshold: float = _setting(0.5, "lowest score of a repair that is applied", least=0.0, most=1.0)
    repair_weights: str = _setting("breakage", "name of the repair network's weights, or a .safetensors file")

    def __post_init__(self) -> None:
        """Refuse a value outside its limits, by name."""
        for setting in fields(self):
            check(setting, getattr(self, setting.name))


def check(setting: Field, value: Any) -> None:
    """Raise AirwaySegError if ``value`` is outside the limits of ``setting``."""
    limits = setting.metadata
    if "choices" in limits and value not in limits["choices"]:
        raise AirwaySegError(f"{setting.name} is {value!r}; it must be one of {', '.join(limits['choices'])}.")
    if "least" in limits and value is not None and not limits["least"] <= value <= limits["most"]:
        raise AirwaySegError(f"{setting.name} is {value}; it must be from {limits['least']} to {limits['most']}.")
