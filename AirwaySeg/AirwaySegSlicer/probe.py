"""Looks at this Python and computer, and prints one line of JSON: PyTorch, GPU, driver, packages, models, disk.

It runs as a child process, never in Slicer itself: a half-installed PyTorch fails in ways that cannot be caught.
"""

import importlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys

REQUIREMENTS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "Resources/requirements.txt")
QUERY = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]


def missing_packages(path: str = REQUIREMENTS) -> list[str]:
    """The names in a requirements file that are not installed."""
    with open(path, encoding="utf-8") as stream:
        names = [match[0] for match in map(re.compile(r"[\w-]+").match, stream) if match]
    missing = []
    for name in names:
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    return missing


def about_torch() -> dict:
    """Version and devices of PyTorch, or why it cannot be imported."""
    try:
        torch = importlib.import_module("torch")
        found = {"version": torch.__version__, "cudaVersion": torch.version.cuda, "gpus": []}
        mps = getattr(torch.backends, "mps", None)
        found["mps"] = bool(mps and mps.is_available())
        for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
            free, total = torch.cuda.mem_get_info(number)
            found["gpus"].append({"name": torch.cuda.get_device_name(number), "free": free, "total": total})
        return found
    except Exception as error:
        return {"error": " ".join(f"{type(error).__name__}: {error}".split())}


def about_driver() -> str:
    """Name and driver version of the NVIDIA GPU as its own tool reports them; empty where there is none."""
    try:
        done = subprocess.run(QUERY, capture_output=True, text=True, timeout=10)
        return done.stdout.splitlines()[0].strip() if done.returncode == 0 and done.stdout.strip() else ""
    except (OSError, subprocess.SubprocessError):
        return ""


def models() -> list[str]:
    """The names of the models that the library knows; none where it cannot be imported."""
    try:
        return list(importlib.import_module("AirwaySegLib.weights").list_weights())
    except Exception:
        return []


def main(folder: str) -> None:
    """Print what there is; ``folder`` is where temporary files go."""
    found = {
        "python": sys.version.split()[0],
        "missing": missing_packages(),
        "driver": about_driver(),
        "freeDisk": shutil.disk_usage(folder).free,
        "torch": about_torch(),
        "models": models(),
    }
    print(json.dumps({"probe": found}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
