"""The table of the networks that segment, one row each, by the names in weights files and recipes.

To add a network without changing the library, write its class and a call of `register_network` into a Python file, and
name this file with ``--plugin``. A weights file only names its network: no code is ever read from it. PyTorch is not
imported here, because the commands read recipes before they need it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from AirwaySegLib.errors import AirwaySegError

DEFAULT = "wingsnet"
"""The network of the default weights."""

HALF = "wingsnet_half"
"""WingsNet with half the channels, a quarter of the operations: that of the weights called fast."""

CONNECTOR = "connector"
"""The connection network, which joins fragments and is not in the table."""


@dataclass(frozen=True)
class Architecture:
    """How a network is built and run.

    Parameters
    ----------
    build
        Called as build(in_channels, classes, norm) with 1 or 2 channels, 1 to 8 classes K, and the norm "instance" or
        "batch" (only with the latter windows may have another size than in training); returns a `torch.nn.Module` with
        random weights. It maps (B, C, Z, Y, X) float in [0, 1] to logits (B, K, Z, Y, X), or to several of them (heads)
        in a tuple: the last one makes the segmentation, the others are only supervised in training. If the module has
        a method ``set_dropout``, it is called with the ``dropout`` of the recipe.
    side_multiple
        The sides of windows and patches are multiples of this number of voxels, itself a multiple of 8: 2 to the
        number of halvings.
    fast_form
        Called with the network; returns an equal one for inference, which gives the logits of the last head. None:
        the network runs as it is.
    openvino
        Whether the fast form is one that `openvino_backend` can write in OpenVINO's operators; else PyTorch runs it.
    """

    build: Callable[[int, int, str], Any]
    side_multiple: int = 8
    fast_form: Callable[[Any], Any] | None = None
    openvino: bool = False


def _wingsnet(in_channels: int, classes: int, norm: str, width: float = 1.0) -> Any:
    from AirwaySegLib.networks.wingsnet import WingsNet

    return WingsNet(in_channels, classes, "instance" if norm == "instance" else "batch", width=width)


def _fast_wingsnet(net: Any) -> Any:
    from AirwaySegLib.networks.wingsnet import fast_form

    return fast_form(net)


NETWORKS: dict[str, Architecture] = {
    DEFAULT: Architecture(_wingsnet, 8, _fast_wingsnet, openvino=True),
    HALF: Architecture(partial(_wingsnet, width=0.5), 8, _fast_wingsnet, openvino=True),
}
"""Every network that segments, by its name."""

_BUILT_IN = frozenset({*NETWORKS, CONNECTOR})


def register_network(name: str, build: Callable[[int, int, str], Any], side_multiple: int = 8) -> None:
    """Add a network that runs as it is to `NETWORKS`; it replaces one of that name that was added before.

    Parameters
    ----------
    name
        A Python identifier, which weights files and recipes use.
    build, side_multiple
        As in `Architecture`.

    Raises
    ------
    AirwaySegError
        If the name is that of a built-in network or no identifier, or the multiple is not one of 8.
    """
    if not name.isidentifier() or name in _BUILT_IN:
        raise AirwaySegError(f"A network cannot be registered as {name!r}: choose another name, an identifier.")
    if side_multiple < 8 or side_multiple % 8:
        raise AirwaySegError(f"The side_multiple of {name} is {side_multiple}; it must be a multiple of 8.")
    NETWORKS[name] = Architecture(build, side_multiple)


def architecture(name: str) -> Architecture:
    """The row of a network; raises AirwaySegError, with the known names, if there is none."""
    if name not in NETWORKS:
        raise AirwaySegError(unknown_network(name))
    return NETWORKS[name]


def unknown_network(name: object) -> str:
    """The sentence about a network that is not in the table."""
    return f"The network {name!r} is unknown: there are {', '.join(NETWORKS)}, and --plugin FILE adds others."


def heads_of(output: Any) -> tuple[Any, ...]:
    """The logits of each head, the one that makes the segmentation last."""
    return tuple(output) if isinstance(output, tuple | list) else (output,)
