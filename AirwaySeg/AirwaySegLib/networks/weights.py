"""Weights files: safetensors with a JSON header from which the network is rebuilt; finding, writing and reading them.

Reading a user's file never runs code in it: our own format holds numbers and JSON only, and a published checkpoint is
read with PyTorch's weights-only unpickler and converted once (`published_checkpoints`).
"""

import dataclasses
import hashlib
import json
import math
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, overload

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.files.json_documents import parse_json
from AirwaySegLib.files.user_files import check_regular_file
from AirwaySegLib.networks.architectures import CONNECTOR, DEFAULT, NETWORKS, architecture, unknown_network
from AirwaySegLib.networks.connection_net import Connector
from AirwaySegLib.networks.wingsnet import SIDE_MULTIPLE, SMALLEST_SIDE, Norm

SUFFIX = ".safetensors"
DEFAULT_NAME = "default"
"""The bundled weights that are used when none are named."""

BREAKAGE_NAME = "breakage"
"""The bundled weights of the connection network."""

Purpose = Literal["segmentation", "connector"]
"""What a network is for: it segments (`architectures.NETWORKS`), or it is the connection network."""

FORMAT_VERSION = 1
HEADER_KEY = "airwayseg"
LARGEST_FILE = 256 * 2**20
"""WingsNet takes 6 MB, a large U-Net 130; a larger file than this is something else and is not read into memory."""

LARGEST_HEADER = 2**20
"""A header with its description takes some 10 kB."""

PUBLISHED_WINDOW_HU = (-1000.0, 600.0)
"""Zheng et al. 2021 clip to [-1000, 600] HU."""

PUBLISHED_SECOND_WINDOW_HU = (-625.0, 125.0)
"""Second channel of two-channel input: width 750, level -250 HU (Tang's paper)."""

LIBRARY = Path(__file__).resolve().parents[1]

Range = tuple[float, float]
Triple = tuple[float, float, float]


@dataclass(frozen=True)
class ModelInfo:
    """The description in a weights file: how to rebuild the network, and the input for which it was trained.

    Triples are in the order z, y, x. ``bfloat16``: it was measured that bfloat16 hardly changes the result, so that it
    may be chosen where it is faster. ``architecture`` is a name of `architectures.NETWORKS`, or "connector".
    """

    name: str
    in_channels: int = 1
    classes: int = 1
    norm: Norm = "instance"
    window_hu: Range = PUBLISHED_WINDOW_HU
    second_window_hu: Range | None = None
    patch_zyx: tuple[int, int, int] = (128, 128, 128)
    spacing_mm_min: Triple = (0.5, 0.5, 0.5)
    spacing_mm_max: Triple = (1.25, 0.9, 0.9)
    bfloat16: bool = False
    provenance: dict[str, Any] = field(default_factory=dict)
    architecture: str = DEFAULT
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        """Refuse values that no known network can have, so that no later check is needed."""
        if self.architecture != CONNECTOR and self.architecture not in NETWORKS:
            raise AirwaySegError(unknown_network(self.architecture))
        wrong = next((text for text, fine in self._checks() if not fine), None)
        if wrong is not None:
            raise AirwaySegError(f"The model description is wrong: {wrong}.")

    def _checks(self) -> list[tuple[str, bool]]:
        multiple = self.side_multiple
        sides = all(side % multiple == 0 and SMALLEST_SIDE <= side <= 512 for side in self.patch_zyx)
        spacing = zip((0.0, 0.0, 0.0), self.spacing_mm_min, self.spacing_mm_max, strict=True)
        return [
            (f"format version {self.format_version} is newer than this program", self.format_version <= FORMAT_VERSION),
            (f"in_channels {self.in_channels} is neither 1 nor 2", self.in_channels in (1, 2)),
            (f"classes {self.classes} is not from 1 to 8", 1 <= self.classes <= 8),
            (f"norm {self.norm!r} is neither 'instance' nor 'batch'", self.norm in ("instance", "batch")),
            (f"window_hu {self.window_hu} is empty", self.window_hu[0] < self.window_hu[1]),
            ("two channels need second_window_hu", self._ct_channels() == 1 + (self.second_window_hu is not None)),
            (
                f"second_window_hu {self.second_window_hu} is empty",
                self.second_window_hu is None or self.second_window_hu[0] < self.second_window_hu[1],
            ),
            (f"patch_zyx {self.patch_zyx} are not multiples of {multiple} from {SMALLEST_SIDE} to 512", sides),
            (
                f"a connector has {Connector.in_channels} channels, {Connector.classes} class, norm {Connector.norm!r}",
                self.architecture != CONNECTOR or self.shape() == _CONNECTOR_SHAPE,
            ),
            ("spacing_mm_min is not below spacing_mm_max", all(zero < low <= high for zero, low, high in spacing)),
        ]

    def shape(self) -> tuple[int, int, Norm]:
        """Channels, classes and norm, for the check against a network."""
        return self.in_channels, self.classes, self.norm

    @property
    def purpose(self) -> Purpose:
        """What the network is for."""
        return "connector" if self.architecture == CONNECTOR else "segmentation"

    @property
    def side_multiple(self) -> int:
        """What the sides of the network's windows are multiples of."""
        return SIDE_MULTIPLE if self.architecture == CONNECTOR else architecture(self.architecture).side_multiple

    def any_window(self) -> bool:
        """Whether windows may have any size: without statistics of the window, only voxels near its edge differ."""
        return self.norm == "batch"

    def _ct_channels(self) -> int:
        """Channels that show the CT; a connector's other channel is the attention."""
        return self.in_channels - (self.architecture == CONNECTOR)

    def build(self) -> nn.Module:
        """The network that these values describe, with random weights."""
        if self.architecture == CONNECTOR:
            return Connector()
        net = architecture(self.architecture).build(*self.shape())
        if not isinstance(net, nn.Module):
            raise AirwaySegError(f"The network {self.architecture!r} was built as {type(net).__name__}, not a Module.")
        return net

    def to_json(self) -> str:
        """One line of JSON with every field."""
        return json.dumps(dataclasses.asdict(self))

    @staticmethod
    def from_json(text: str) -> "ModelInfo":
        """The inverse of `to_json`; raises AirwaySegError for a field that is missing, unknown or of the wrong kind."""
        try:
            values = parse_json(text)
            name = str(values["name"])
            unknown = sorted(set(values) - {f.name for f in dataclasses.fields(ModelInfo)})
            if unknown:
                raise AirwaySegError(f"The model description is wrong: field {unknown[0]!r} is unknown.")
            return ModelInfo(**{**values, **_typed(values), "name": name})
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError) as error:
            raise AirwaySegError(f"The model description is not readable ({error}).") from error


def _typed(values: dict[str, Any]) -> dict[str, Any]:
    """Fields of parsed JSON as the types that `ModelInfo` declares: tuples of numbers, whole numbers, a dict."""
    typed: dict[str, Any] = {}
    for key, length, kind in (
        ("window_hu", 2, float),
        ("second_window_hu", 2, float),
        ("patch_zyx", 3, int),
        ("spacing_mm_min", 3, float),
        ("spacing_mm_max", 3, float),
    ):
        if values.get(key) is not None:
            typed[key] = tuple(kind(number) for number in values[key])
            if len(typed[key]) != length or not all(map(math.isfinite, typed[key])):
                raise ValueError(f"{key} needs {length} finite numbers")
    for key in ("in_channels", "classes", "format_version"):
        if key in values:
            typed[key] = int(values[key])
    if "bfloat16" in values:
        typed["bfloat16"] = bool(values["bfloat16"])
    if "provenance" in values:
        typed["provenance"] = dict(values["provenance"])
    return typed


_CONNECTOR_SHAPE = (Connector.in_channels, Connector.classes, Connector.norm)


def _fits(net: nn.Module, info: ModelInfo) -> bool:
    """Whether the network that ``info`` describes has the names and shapes of ``net``'s weights."""
    with torch.random.fork_rng(devices=[]):  # building draws random weights; a training must not notice
        described = info.build().state_dict()
    return {key: value.shape for key, value in described.items()} == {
        key: value.shape for key, value in net.state_dict().items()
    }


def save_weights(path: Path, net: nn.Module, info: ModelInfo, force: bool = False) -> None:
    """Write network and description by an atomic write: a kill leaves the old file or the new one, never a part.

    Raises
    ------
    AirwaySegError
        If `path` exists and `force` is False, if `info` does not describe `net`, or if the folder is not writable.
    """
    if not _fits(net, info):
        raise AirwaySegError(f"The description of {info.name} does not fit its network; {path} was not written.")
    if path.exists() and not force:
        raise AirwaySegError(f"{path} exists; use --force to overwrite it.")
    tensors = {
        key: value.detach().to("cpu", torch.float32 if value.is_floating_point() else None).contiguous()
        for key, value in net.state_dict().items()
    }
    data = safetensors.torch.save(tensors, metadata={HEADER_KEY: info.to_json()})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, data)
    except OSError as error:
        raise AirwaySegError(f"{path} cannot be written ({error.strerror}).") from error


def _replace(path: Path, data: bytes) -> None:
    """Atomic write: to a temporary file beside `path`, flushed to the disk, then renamed."""
    # Not tempfile: its files can be read by their owner only, but weights may be shared.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(temporary, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@overload
def load_weights(
    name_or_path: str | Path = DEFAULT_NAME, purpose: Literal["segmentation"] = "segmentation"
) -> tuple[nn.Module, ModelInfo, str]:
    """A network that segments."""


@overload
def load_weights(name_or_path: str | Path, purpose: Literal["connector"]) -> tuple[Connector, ModelInfo, str]:
    """The connection network."""


def load_weights(
    name_or_path: str | Path = DEFAULT_NAME, purpose: Purpose = "segmentation"
) -> tuple[nn.Module, ModelInfo, str]:
    """The network in evaluation mode on the CPU, its description, and the file's SHA-256 as hex.

    Weights that are found by a name are described with it, whatever they were called when they were trained.

    Parameters
    ----------
    name_or_path
        A name of `list_weights`, or a file.
    purpose
        What the network must be for.

    Raises
    ------
    AirwaySegError
        If the weights are unknown, or the file is not a complete weights file of ours or holds a network for
        another purpose or one that is not known here.
    """
    path = find_weights(name_or_path, purpose)
    data = read_bytes(path)
    info = _description(path, data)
    if info.purpose != purpose:
        needed = "connector" if purpose == "connector" else "network that segments"
        raise AirwaySegError(f"{path} holds a {info.architecture}, but a {needed} is needed here.")
    try:
        tensors = safetensors.torch.load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise AirwaySegError(f"{path} is damaged: {error}.") from error
    net = info.build()
    _check_tensors(path, tensors, net.state_dict())
    net.load_state_dict(tensors)
    return net.eval(), _named(info, name_or_path, path), hashlib.sha256(data).hexdigest()


def read_info(name_or_path: str | Path) -> tuple[ModelInfo, str]:
    """The description, as in `load_weights`, and the SHA-256 of a weights file, without building the network."""
    path = find_weights(name_or_path)
    data = read_bytes(path)
    return _named(_description(path, data), name_or_path, path), hashlib.sha256(data).hexdigest()


def _named(info: ModelInfo, name_or_path: str | Path, path: Path) -> ModelInfo:
    """The description of the weights at ``path``, with the name by which they were asked for, if it was no path."""
    return info if Path(name_or_path) == path else dataclasses.replace(info, name=str(name_or_path))


def read_bytes(path: Path) -> bytes:
    """A whole file; raises AirwaySegError if it is not a regular file, larger than `LARGEST_FILE` or unreadable."""
    check_regular_file(path)
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise AirwaySegError(f"{path} exceeds {LARGEST_FILE >> 20} MiB, so it is not a weights file of AirwaySeg.")
        return path.read_bytes()
    except OSError as error:
        raise AirwaySegError(f"{path} cannot be read ({error.strerror}).") from error


def _description(path: Path, data: bytes) -> ModelInfo:
    """Header of a safetensors file: 8 bytes little-endian length, then that many bytes of JSON."""
    length = int.from_bytes(data[:8], "little")
    try:
        if len(data) < 8 or length > len(data) - 8:
            raise ValueError("too short")
        header = parse_json(data[8 : 8 + length])
        if not isinstance(header, dict):
            raise ValueError("no object")
    except ValueError as error:
        raise AirwaySegError(
            f"{path} is not a complete safetensors file; convert a .ckpt file with `airwayseg weights import`."
        ) from error
    metadata = header.get("__metadata__")
    if not isinstance(metadata, dict) or not isinstance(metadata.get(HEADER_KEY), str):
        raise AirwaySegError(f"{path} has no AirwaySeg header, so its network cannot be rebuilt.")
    try:
        return ModelInfo.from_json(metadata[HEADER_KEY])
    except AirwaySegError as error:
        raise AirwaySegError(f"{path}: {error}") from error


def _check_tensors(path: Path, found: dict[str, Tensor], needed: dict[str, Tensor]) -> None:
    """Raise AirwaySegError for the first tensor that is missing, unknown, of the wrong shape or not finite."""
    for key, value in needed.items():
        if key not in found:
            raise AirwaySegError(f"{path} lacks the tensor {key}.")
        if found[key].shape != value.shape:
            raise AirwaySegError(f"{path}: {key} is {tuple(found[key].shape)}, not {tuple(value.shape)}.")
        if not torch.isfinite(found[key]).all():
            raise AirwaySegError(f"{path}: {key} holds values that are not finite.")
    superfluous = next((key for key in found if key not in needed), None)
    if superfluous is not None:
        raise AirwaySegError(f"{path} holds the unknown tensor {superfluous}.")


def user_folder() -> Path:
    """The folder of imported and trained weights: AIRWAYSEG_MODELS, or the platform's folder for user data."""
    chosen = os.environ.get("AIRWAYSEG_MODELS")
    if chosen:
        return Path(chosen)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return base / "AirwaySeg" / "Models"


def bundled_folders(library: Path = LIBRARY) -> list[Path]:
    """The folders of bundled weights, for AirwaySegLib in the source tree, installed by pip, or installed by Slicer."""
    folders = (
        library.parents[1] / "Resources" / "Models",
        library / "Models",
        library.parent / "Resources" / "Models",
    )
    return [folder for folder in folders if folder.is_dir()]


def list_weights(purpose: Purpose | None = "segmentation") -> dict[str, Path]:
    """Every known name of networks for one purpose, or for any, with its file, sorted.

    A user's file hides a bundled one of the same name and purpose. An unreadable file counts as WingsNet, so that a
    damaged file is still listed, and reported as damaged when it is used.
    """
    found: dict[str, Path] = {}
    for folder in (*reversed(bundled_folders()), user_folder()):
        paths = folder.glob(f"*{SUFFIX}")
        found |= {path.stem: path for path in paths if purpose in (None, purpose_of(path))}
    return dict(sorted(found.items()))


def purpose_of(path: Path) -> Purpose:
    """What the network in a weights file is for, from the file's header alone; "segmentation" if it is unreadable."""
    return "connector" if architecture_of(path) == CONNECTOR else "segmentation"


def architecture_of(path: Path) -> str:
    """The network's name in a weights file, from its header alone; "wingsnet" if the header cannot be read.

    The name need not be known here.
    """
    try:
        check_regular_file(path)
        with open(path, "rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = parse_json(stream.read(min(length, LARGEST_HEADER)))
        described = parse_json(header["__metadata__"][HEADER_KEY])["architecture"]
    except (OSError, ValueError, TypeError, KeyError, AirwaySegError):
        return DEFAULT
    return described if isinstance(described, str) and described.isidentifier() else DEFAULT


def find_weights(name_or_path: str | Path, purpose: Purpose = "segmentation") -> Path:
    """The weights file of a name or path; of several files of one name, that for the given purpose.

    Raises
    ------
    AirwaySegError
        If the weights are unknown; the sentence lists the known names for that purpose.
    """
    path = Path(name_or_path)
    if os.path.exists(path) and not os.path.isdir(path):
        return path
    known = list_weights(purpose)
    of_any_kind = list_weights(None) | known
    if str(name_or_path) in of_any_kind:
        return of_any_kind[str(name_or_path)]
    names = ", ".join(known) or "none"
    raise AirwaySegError(f"Unknown weights {str(name_or_path)!r}: neither a file nor a known name ({names}).")
