"""Examines this Python and computer, and writes a JSON file: PyTorch, GPU, driver, packages, models, disk.

It runs as a child process, never in Slicer itself: a half-installed PyTorch may crash the process that imports it.
"""

import importlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from typing import Any

RESOURCES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "Resources")
REQUIREMENTS = os.path.join(RESOURCES, "requirements.txt")
OPTIONAL = os.path.join(RESOURCES, "requirements-optional.txt")
PROBE_FILE = "probe.json"
TIMED_MODELS = ("default", "fast")
QUERY = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]


def missing_packages(path: str = REQUIREMENTS) -> list[str]:
    """The packages of a requirements file, as far as they apply here, that are not installed in a fitting version."""
    from packaging.requirements import Requirement

    with open(path, encoding="utf-8") as stream:
        lines = [line.strip() for line in stream]
    wanted = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return [one.name for one in wanted if (one.marker is None or one.marker.evaluate()) and not _is_installed(one)]


def _is_installed(requirement: Any) -> bool:
    try:
        return requirement.specifier.contains(importlib.metadata.version(requirement.name), prereleases=True)
    except importlib.metadata.PackageNotFoundError:
        return False


def about_torch() -> dict:
    """Version and devices of PyTorch, or the error on importing it."""
    try:
        torch = importlib.import_module("torch")
        found = {"version": torch.__version__, "cudaVersion": torch.version.cuda, "gpus": []}
        mps = getattr(torch.backends, "mps", None)
        found["mps"] = bool(mps and mps.is_available() and mps_runs_network())
        for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
            free, total = torch.cuda.mem_get_info(number)
            found["gpus"].append({"name": torch.cuda.get_device_name(number), "free": free, "total": total})
        return found
    except Exception as error:
        return {"error": " ".join(f"{type(error).__name__}: {error}".split())}


def mps_runs_network() -> bool:
    """Whether Apple's GPU has all operators of the network; False where the library cannot be imported."""
    try:
        return importlib.import_module("AirwaySegLib.networks.device_plan").runs_network("mps")
    except Exception:
        return False


def about_driver() -> str:
    """Name and driver version of the NVIDIA GPU according to nvidia-smi; empty where there is none."""
    try:
        done = subprocess.run(QUERY, capture_output=True, text=True, timeout=10)
        return done.stdout.splitlines()[0].strip() if done.returncode == 0 and done.stdout.strip() else ""
    except (OSError, subprocess.SubprocessError):
        return ""


def models() -> list[str]:
    """The names of the library's models; none where it cannot be imported."""
    try:
        return list(importlib.import_module("AirwaySegLib.networks.weights").list_weights())
    except Exception:
        return []


def about_network(model: str) -> dict:
    """How a model's network runs here, and how long a usual CT takes; empty where it does not run."""
    try:
        settings = importlib.import_module("AirwaySegLib.settings").SegmentSettings(weights=model)
        return importlib.import_module("AirwaySegLib.commands.info").usual_case(settings)
    except Exception:
        return {}


def about_networks(names: list[str]) -> dict[str, dict]:
    """`about_network` of each of `TIMED_MODELS` that is there; without those that do not run."""
    found = {name: about_network(name) for name in TIMED_MODELS if name in names}
    return {name: about for name, about in found.items() if about}


def main(folder: str) -> None:
    """Write `PROBE_FILE` into ``folder``, a temporary one, on whose disk the free space is measured."""
    found = {
        "python": sys.version.split()[0],
        "missing": missing_packages(),
        "slow": missing_packages(OPTIONAL),
        "driver": about_driver(),
        "freeDisk": shutil.disk_usage(folder).free,
        "torch": about_torch(),
        "models": (names := models()),
        "networks": about_networks(names),
    }
    with open(os.path.join(folder, PROBE_FILE), "w", encoding="utf-8") as stream:
        json.dump(found, stream)


if __name__ == "__main__":
    main(sys.argv[1])
