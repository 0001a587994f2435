"""Whether everything is there that the module needs: each finding in a sentence, with the one thing that mends it."""

import json
from dataclasses import dataclass, field, replace

from AirwaySegSlicer.jobs import Audience, start_job
from AirwaySegSlicer.process import ConsoleProcess

LEAST_DISK = 2e9
"""Bytes: an uncompressed CT and its probability map take up to one and a half."""

DEVICES = ("auto", "cpu", "cuda", "mps")


@dataclass(frozen=True)
class Finding:
    """One look at the installation; ``fix`` is empty where nothing has to be done."""

    what: str
    fix: str = ""


@dataclass(frozen=True)
class Installation:
    """What the probe saw: findings, a line about the device, names of models, devices that can be chosen."""

    findings: list[Finding] = field(default_factory=list)
    device_line: str = ""
    models: list[str] = field(default_factory=list)
    devices: list[str] = field(default_factory=lambda: ["auto", "cpu"])


def start_probe(audience: Audience) -> ConsoleProcess:
    """Look at the installation in a child process; the audience's result is an `Installation`."""
    seen: list[dict] = []

    def read(line: str) -> None:
        try:
            seen.append(json.loads(line)["probe"])
        except (ValueError, KeyError, TypeError):
            audience.on_line(line)

    def collect(folder: str) -> Installation:
        if not seen:
            raise RuntimeError("The installation could not be looked at.")
        return judge(seen[-1])

    return start_job(replace(audience, on_line=read), lambda folder: [folder], collect, "AirwaySegSlicer.probe")


def judge(probe: dict) -> Installation:
    """Findings and the rest from what the probe printed."""
    torch = probe["torch"]
    gpus = torch.get("gpus", [])
    devices = ["auto", "cpu", *(["cuda"] if gpus else []), *(["mps"] if torch.get("mps") else [])]
    findings = [_packages(probe), _torch(torch), _gpu(probe), _disk(probe), _models(probe)]
    return Installation(findings, _device_line(probe), probe["models"], devices)


def _packages(probe: dict) -> Finding:
    if probe["missing"]:
        return Finding(f"Python lacks {', '.join(probe['missing'])}.", "Press Install what is missing.")
    return Finding(f"Python {probe['python']} has the packages that AirwaySeg needs.")


def _torch(torch: dict) -> Finding:
    error = torch.get("error", "")
    if error.startswith("ModuleNotFoundError: No module named 'torch'"):
        return Finding("PyTorch is not installed.", "Press Install what is missing.")
    if error:
        fix = "Open the module PyTorch, uninstall PyTorch, restart Slicer and press Install what is missing."
        return Finding(f"PyTorch is damaged ({error}).", fix)
    return Finding(f"PyTorch {torch['version']} works.")


def _gpu(probe: dict) -> Finding:
    torch, driver = probe["torch"], probe["driver"]
    if torch.get("gpus") or torch.get("mps"):
        return Finding(f"The GPU works: {_device_line(probe)}.")
    if not driver or "error" in torch:
        return Finding("There is no GPU that PyTorch could use; the network runs on the CPU, in a minute or two.")
    if not torch["cudaVersion"]:
        fix = "Open the module PyTorch, uninstall PyTorch and install it again with a CUDA computation backend."
        return Finding(f"There is a GPU ({driver}), but this PyTorch is for the CPU only.", fix)
    fix = f"Update the NVIDIA driver to one that supports CUDA {torch['cudaVersion']}."
    return Finding(f"PyTorch for CUDA {torch['cudaVersion']} cannot use the GPU and its driver ({driver}).", fix)


def _disk(probe: dict) -> Finding:
    free = f"{probe['freeDisk'] / 1e9:.1f} GB"
    if probe["freeDisk"] < LEAST_DISK:
        fix = "Free some space, or choose another temporary folder in Edit > Application Settings > General."
        return Finding(f"The disk of Slicer's temporary folder has only {free} free.", fix)
    return Finding(f"The disk of Slicer's temporary folder has {free} free.")


def _models(probe: dict) -> Finding:
    if probe["models"]:
        return Finding(f"Models: {', '.join(probe['models'])}.")
    broken = probe["missing"] or "error" in probe["torch"]
    fix = "Mend the findings above first." if broken else "Install the extension AirwaySeg again."
    return Finding("No model can be read.", fix)


def _device_line(probe: dict) -> str:
    torch = probe["torch"]
    if "error" in torch:
        return "PyTorch is not ready; see Check installation"
    if torch["gpus"]:
        gpu = torch["gpus"][0]
        return f"CUDA: {gpu['free'] / 2**30:.1f} of {gpu['total'] / 2**30:.0f} GB free ({gpu['name']})"
    return "Apple GPU (MPS)" if torch["mps"] else "CPU: no GPU that PyTorch can use"
