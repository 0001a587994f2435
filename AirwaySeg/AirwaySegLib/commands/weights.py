"""The command `airwayseg weights`: list the known weights, describe one file, import a published checkpoint."""

import json
from pathlib import Path
from typing import Any

from AirwaySegLib.networks.published_checkpoints import import_published
from AirwaySegLib.networks.weights import Purpose, architecture_of, list_weights, load_weights, purpose_of


def weights_table() -> str:
    """One line for each known weights file: name, kind of network and path, separated by tabs."""
    purposes: tuple[Purpose, ...] = ("segmentation", "connector")
    rows = [row for purpose in purposes for row in list_weights(purpose).items()]
    return "\n".join(f"{name}\t{architecture_of(path)}\t{path}" for name, path in rows)


def weights_description(name_or_path: str) -> dict[str, Any]:
    """The description in a weights file, with the number of its parameters and its SHA-256, as plain values for JSON.

    Raises
    ------
    AirwaySegError
        If the weights are unknown or the file cannot be read.
    """
    path = Path(name_or_path)
    of_repair = path.is_file() and purpose_of(path) == "connector"
    of_repair = of_repair or name_or_path in list_weights("connector").keys() - list_weights().keys()
    net, info, sha256 = load_weights(name_or_path, "connector") if of_repair else load_weights(name_or_path)
    parameters = sum(parameter.numel() for parameter in net.parameters())
    return {**json.loads(info.to_json()), "parameters": parameters, "sha256": sha256}


def import_weights(checkpoint: Path, name: str | None, force: bool) -> Path:
    """Convert a published WingsNet checkpoint; the file that was written.

    ``name`` is a name or a .safetensors file to write; None takes the checkpoint's own name. ``force`` replaces weights
    of that name.

    Raises
    ------
    AirwaySegError
        As `import_published`.
    """
    return import_published(checkpoint, name or checkpoint.stem, force=force)
