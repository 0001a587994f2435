"""Import of published WingsNet checkpoints: those of its authors, and of the winners of ATM'22 and AIIB23."""

import argparse
import hashlib
import warnings
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.networks.weights import (
    PUBLISHED_SECOND_WINDOW_HU,
    PUBLISHED_WINDOW_HU,
    SUFFIX,
    ModelInfo,
    Range,
    list_weights,
    read_bytes,
    save_weights,
    user_folder,
)
from AirwaySegLib.networks.wingsnet import has_bare_heads, published_to_ours

CHALLENGE_WINDOW_HU, CHALLENGE_SECOND_WINDOW_HU = (-1024.0, 1024.0), (-1000.0, 500.0)
"""HU windows of both channels in the programs of the winners of ATM'22 and AIIB23."""


def import_published(
    checkpoint: Path,
    name_or_out: str,
    window_hu: Range | None = None,
    second_window_hu: Range | None = None,
    force: bool = False,
) -> Path:
    """Convert a published WingsNet checkpoint (of its authors, or of the winner of ATM'22 or AIIB23) into our format.

    The winners' programs use dropout also when they segment; here it is off, so that a CT always gives the same mask.

    Parameters
    ----------
    checkpoint
        The authors' file: a dict with `state_dict`, or the bare state dict. Reading it never runs code in it,
        and numpy arrays beside the weights are left out.
    name_or_out
        A name, for a file in `user_folder`, or a path that ends in .safetensors.
    window_hu, second_window_hu
        The window(s) that the network was trained with; the second is used by two-channel networks only. None
        takes those of the program whose layout the checkpoint has.
    force
        Overwrite an existing file, or hide a bundled one of the same name.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    AirwaySegError
        If the checkpoint cannot be read or is not a published WingsNet, the name is not a plain one, or the weights
        exist and ``force`` is False.
    """
    is_name = not name_or_out.endswith(SUFFIX)
    out = user_folder() / f"{name_or_out}{SUFFIX}" if is_name else Path(name_or_out)
    if is_name and Path(name_or_out).name != name_or_out:
        raise AirwaySegError(f"{name_or_out!r} is neither a plain name nor a path that ends in {SUFFIX}.")
    if is_name and name_or_out in list_weights() and not force:
        raise AirwaySegError(f"Weights {name_or_out!r} exist; use --force to overwrite or hide them.")
    data = read_bytes(checkpoint)
    published = _published_state(checkpoint)
    state, in_channels, classes = published_to_ours(published)
    of_challenge = has_bare_heads(published)
    first = CHALLENGE_WINDOW_HU if of_challenge else PUBLISHED_WINDOW_HU
    second = CHALLENGE_SECOND_WINDOW_HU if of_challenge else PUBLISHED_SECOND_WINDOW_HU
    info = ModelInfo(
        name=out.stem,
        in_channels=in_channels,
        classes=classes,
        window_hu=window_hu or first,
        second_window_hu=(second_window_hu or second) if in_channels == 2 else None,
        provenance={"imported_from": checkpoint.name, "sha256": hashlib.sha256(data).hexdigest()},
    )
    net = info.build()
    net.load_state_dict(state)
    save_weights(out, net, info, force)
    return out


class NumpyValue:
    """Replaces a numpy array or number in a checkpoint: no array is created, and its content is dropped."""

    def __init__(self, *_: object) -> None:
        """Accept the arguments of numpy's own class."""

    def __setstate__(self, _: object) -> None:
        """Accept the state of numpy's own class."""


_NUMPY_NAMES = (
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
)
_STAND_INS = [type(name, (NumpyValue,), {"__module__": module}) for module, name in _NUMPY_NAMES]
"""Classes with the names of numpy 1's and numpy 2's in a pickle, so that numpy itself reads nothing of the file."""


def _published_state(checkpoint: Path) -> dict[str, Tensor]:
    try:
        # The authors' checkpoints also hold their command line as a Namespace, which holds values only.
        with torch.serialization.safe_globals([argparse.Namespace, *_STAND_INS]), warnings.catch_warnings():
            # An unreadable file is refused below; for a readable one the pickle protocol does not matter.
            warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)
            content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception as error:  # arbitrary bytes: the unpickler's exception types are not documented
        raise AirwaySegError(f"{checkpoint} is not a checkpoint that can be read without running code.") from error
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise AirwaySegError(f"{checkpoint} holds no state_dict.")
    return cast(dict[str, Tensor], state)
