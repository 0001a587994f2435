"""Checks whether all that the module needs is installed; each finding is a sentence, each problem has a fix."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field

from slicer.i18n import tr as _

from AirwaySegSlicer.commands.dependencies import LEAST_TORCH, is_older
from AirwaySegSlicer.commands.jobs import Job
from AirwaySegSlicer.commands.probe_child import PROBE_FILE

LEAST_DISK = 2e9
"""Bytes: an uncompressed CT and its probability map take up to 1.5e9."""

DEFAULT_MODEL = "default"

LEAST_SLICER = (5, 12)
"""The first version with `slicer.packaging`."""


@dataclass(frozen=True)
class Finding:
    """One fact about the installation; ``fix`` is empty where there is no problem."""

    what: str
    fix: str = ""


@dataclass(frozen=True)
class Installation:
    """The result of the probe: findings, a line about the device, names of models, available devices.

    ``durations`` says for some models how long a usual CT takes with them.
    """

    findings: list[Finding] = field(default_factory=list)
    device_line: str = ""
    models: list[str] = field(default_factory=list)
    devices: list[str] = field(default_factory=lambda: ["auto", "cpu"])
    durations: dict[str, str] = field(default_factory=dict)


def about_old_slicer(major: int, minor: int) -> str:
    """The sentence for a Slicer that is too old; empty for the others."""
    if (major, minor) >= LEAST_SLICER:
        return ""
    least = ".".join(map(str, LEAST_SLICER))
    sentence = _("AirwaySeg needs 3D Slicer {least} or newer; this is 3D Slicer {version}.")
    return sentence.format(least=least, version=f"{major}.{minor}")


def probe_job() -> Job:
    """Check the installation in a child process; the job's result is an `Installation`."""

    def collect(folder: str) -> Installation:
        """Judge what the child found."""
        with open(os.path.join(folder, PROBE_FILE), encoding="utf-8") as stream:
            return judge(json.load(stream))

    return Job(lambda folder: [folder], collect, module="AirwaySegSlicer.commands.probe_child")


def judge(probe: dict) -> Installation:
    """The installation from the probe's JSON."""
    torch = probe["torch"]
    gpus = torch.get("gpus", [])
    devices = ["auto", "cpu", *(["cuda"] if gpus else []), *(["mps"] if torch.get("mps") else [])]
    findings = [
        _packages(probe),
        _torch(torch),
        _gpu(probe),
        *_speed(probe),
        *_network(probe),
        _disk(probe),
        _models(probe),
    ]
    durations = {name: about["duration"] for name, about in probe.get("networks", {}).items()}
    usual = durations.get(DEFAULT_MODEL, "")
    line = _("{device}; a usual CT takes {duration}").format(device=_device_line(probe), duration=usual)
    device_line = line if usual else _device_line(probe)
    return Installation(findings, device_line, probe["models"], devices, durations)


def _packages(probe: dict) -> Finding:
    if probe["missing"]:
        what = _("Python lacks {packages}.").format(packages=", ".join(probe["missing"]))
        return Finding(what, _("Press Install what is missing."))
    return Finding(_("Python {version} has the packages that AirwaySeg needs.").format(version=probe["python"]))


def _torch(torch: dict) -> Finding:
    error = torch.get("error", "")
    if error.startswith("ModuleNotFoundError: No module named 'torch'"):
        return Finding(_("PyTorch is not installed."), _("Press Install what is missing."))
    if error:
        fix = _("Open the module PyTorch, uninstall PyTorch, restart Slicer and press Install what is missing.")
        return Finding(_("PyTorch is damaged ({error}).").format(error=error), fix)
    if is_older(torch["version"], LEAST_TORCH):
        what = _("PyTorch {version} is too old, {least} or newer is needed.")
        fix = _("Open the module PyTorch, uninstall PyTorch, restart Slicer and press Install what is missing.")
        return Finding(what.format(version=torch["version"], least=LEAST_TORCH), fix)
    return Finding(_("PyTorch {version} works.").format(version=torch["version"]))


def _gpu(probe: dict) -> Finding:
    torch, driver = probe["torch"], probe["driver"]
    if torch.get("gpus") or torch.get("mps"):
        return Finding(_("The GPU works: {device}.").format(device=_device_line(probe)))
    if not driver or "error" in torch:
        return Finding(_("PyTorch finds no GPU that it can use; the network runs on the CPU, which takes minutes."))
    if not torch["cudaVersion"]:
        what = _("There is a GPU ({driver}), but this PyTorch is for the CPU only.").format(driver=driver)
        fix = _("Open the module PyTorch, uninstall PyTorch and install it again with a CUDA computation backend.")
        return Finding(what, fix)
    what = _("PyTorch for CUDA {version} cannot use the GPU and its driver ({driver}).")
    fix = _("Update the NVIDIA driver to one that supports CUDA {version}.").format(version=torch["cudaVersion"])
    return Finding(what.format(version=torch["cudaVersion"], driver=driver), fix)


def _speed(probe: dict) -> list[Finding]:
    """Missing packages that would speed up the network, where it runs on the CPU."""
    slow = probe.get("slow", [])
    if not slow or probe["torch"].get("gpus") or probe["torch"].get("mps"):
        return []
    what = _("Python lacks {packages}, which makes the network several times faster on the CPU.")
    return [Finding(what.format(packages=", ".join(slow)), _("Press Install what is missing."))]


def _network(probe: dict) -> list[Finding]:
    """What runs the network, and how long a usual CT takes; none where it does not run."""
    network = probe.get("networks", {}).get(DEFAULT_MODEL)
    if not network:
        return []
    what = _("The network runs on {device}{library} in {precision}; a usual CT of 300 slices takes {duration}.")
    library = _(" with {library}").format(library=network["library"]) if network["library"] else ""
    device = {"cpu": _("the CPU"), "mps": _("Apple's GPU")}.get(network["device"], _("the GPU"))
    return [Finding(what.format(**{**network, "device": device, "library": library}))]


def _disk(probe: dict) -> Finding:
    free = f"{probe['freeDisk'] / 1e9:.1f}"
    if probe["freeDisk"] < LEAST_DISK:
        fix = _("Free some space, or choose another temporary folder in Edit > Application Settings > General.")
        return Finding(_("The disk of Slicer's temporary folder has only {free} GB free.").format(free=free), fix)
    return Finding(_("The disk of Slicer's temporary folder has {free} GB free.").format(free=free))


def _models(probe: dict) -> Finding:
    if probe["models"]:
        return Finding(_("Models: {names}.").format(names=", ".join(probe["models"])))
    broken = probe["missing"] or "error" in probe["torch"]
    fix = _("Fix the problems above first.") if broken else _("Install the extension AirwaySeg again.")
    return Finding(_("No model can be read."), fix)


def _device_line(probe: dict) -> str:
    torch = probe["torch"]
    if "error" in torch:
        return _("PyTorch is not ready; see Check installation")
    if torch["gpus"]:
        gpu = torch["gpus"][0]
        free, total = (f"{gpu['free'] / 2**30:.1f}", f"{gpu['total'] / 2**30:.0f}")
        return _("CUDA: {free} of {total} GB free ({name})").format(free=free, total=total, name=gpu["name"])
    return _("Apple GPU (MPS)") if torch["mps"] else _("CPU: no GPU that PyTorch can use")
