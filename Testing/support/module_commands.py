"""In the place of slow commands: quick children that print and leave what the real ones do.

Called as PythonSlicer: -m PACKAGE COMMAND ... With AIRWAYSEG_STAND_IN=slow they work until they are killed, with
AIRWAYSEG_STAND_IN=wait until the file AIRWAYSEG_GO is there; with AIRWAYSEG_STAND_IN=fail they end with a sentence,
with AIRWAYSEG_STAND_IN=fragments a segmentation leaves some fragments out, and with AIRWAYSEG_STAND_IN=unmeasured it
could not measure its mask; with AIRWAYSEG_STAND_IN=unconnected two of its fragments are airway for certain.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from AirwaySegLib.early import arguments_in

REPORT = {
    "program": "AirwaySeg 0.1.0",
    "finished": "2026-01-02T03:04:05+00:00",
    "model": {"name": "default", "sha256": "ab12"},
    "settings": {"weights": "default"},
    "decisions": {"device": "cpu"},
    "warnings": ["The slices are 5 mm apart."],
}
PROBE = {
    "python": "3.12.10",
    "missing": [],
    "driver": "",
    "freeDisk": 5e10,
    "torch": {"version": "2.13.0", "cudaVersion": None, "gpus": [], "mps": False},
    "models": ["default", "mine"],
}
LEFT_OUT = {"method": "both", "fragments": 97, "fragments_joined": 11, "voxels_left_out": 8760}
STATES = ["applied"] * 4 + ["proposed"] * 11 + ["refused"] * 2
OUTCOME = {
    "before": {"p1": {"tld": 0.80, "bd": 0.70, "precision": 0.90, "dsc": 0.85}},
    "after": {"p1": {"tld": 0.85, "bd": 0.75, "precision": 0.91, "dsc": 0.86}},
    "remembered_before": {"tld": 0.90, "near": 0.95},
    "remembered_after": {"tld": 0.89, "near": 0.95},
    "better": True,
    "reason": "it rose by 4.0 points.",
    "name": "mine",
}


def tell(stage: str, done: int, total: int) -> None:
    """A line of progress."""
    print(json.dumps({"stage": stage, "done": done, "total": total, "seconds_left": 3.0}), flush=True)


def misbehave() -> None:
    """What the environment asks for."""
    wish = os.environ.get("AIRWAYSEG_STAND_IN", "")
    if wish == "slow":
        time.sleep(1000)
    while wish == "wait" and not os.path.exists(os.environ["AIRWAYSEG_GO"]):
        time.sleep(0.01)
    if wish == "fail":
        sys.exit("airwayseg: The scan shows no chest.")


def segment(arguments: list[str]) -> None:
    """Airway is what is darker than -900 HU; it is measured by the real command."""
    tell("infer", 1, 2)
    misbehave()
    print("airwayseg: a line for the log", flush=True)
    folder = arguments[arguments.index("-o") + 1]
    os.mkdir(folder)
    with open(arguments[0], "rb") as stream:
        header, voxels = stream.read().split(b"\n\n", 1)
    dark = (np.frombuffer(voxels, "<i2") < -900).astype(np.uint8)
    with open(os.path.join(folder, "airways.nrrd"), "wb") as stream:
        stream.write(header.replace(b"type: int16", b"type: uint8") + b"\n\n" + dark.tobytes())
    shutil.copy(os.path.join(folder, "airways.nrrd"), os.path.join(folder, "origin.nrrd"))  # All is the network's.
    decisions, states, wish = dict(REPORT["decisions"]), [], os.environ.get("AIRWAYSEG_STAND_IN")
    if wish in ("fragments", "unconnected"):
        decisions["repair"], states = LEFT_OUT, STATES
    if wish == "unconnected":
        pieces = two_blocks(header)
        decisions["unconnected"] = {"pieces": 2, "voxels": int(np.count_nonzero(pieces)), "millilitres": 0.238}
        with open(os.path.join(folder, "unconnected.nrrd"), "wb") as stream:
            stream.write(header.replace(b"type: int16", b"type: uint8") + b"\n\n" + pieces.tobytes())
    if wish == "unmeasured":
        decisions["not_measured"] = "The mask falls into too many branches."
    elif "--voxels" in arguments:
        measure([os.path.join(folder, "airways.nrrd"), "-o", folder, "--voxels", "--progress", "json"])
    with open(os.path.join(folder, "repairs.json"), "w") as stream:
        json.dump({"repairs": [{"state": state} for state in states]}, stream)
    with open(os.path.join(folder, "report.json"), "w") as stream:
        json.dump(REPORT | {"decisions": decisions}, stream)


def two_blocks(header: bytes) -> np.ndarray:
    """Two blocks of 100 voxels in a corner of the grid, numbered 3 and 8."""
    x, y, z = (int(count) for count in re.search(rb"sizes: (\d+) (\d+) (\d+)", header).groups())
    pieces = np.zeros((z, y, x), np.uint8)
    pieces[70:75, 30:35, 5:9], pieces[60:65, 30:35, 5:9] = 3, 8
    return pieces


def measure(arguments: list[str]) -> None:
    """The real command, or what it left for the same mask before, kept in AIRWAYSEG_KEPT."""
    with open(arguments[0], "rb") as stream:
        key = hashlib.sha256(stream.read() + json.dumps(arguments[3:]).encode()).hexdigest()
    kept, folder = os.path.join(os.environ["AIRWAYSEG_KEPT"], key), arguments[arguments.index("-o") + 1]
    if not os.path.isdir(kept):
        real = [sys.executable, "-m", "AirwaySegLib", "measure", arguments[0], "-o", kept, *arguments[3:]]
        done = subprocess.run(real)
        if done.returncode:
            sys.exit(done.returncode)
    shutil.copytree(kept, folder, dirs_exist_ok=True)


def finetune(arguments: list[str]) -> None:
    """It became better, unless AIRWAYSEG_OUTCOME says otherwise."""
    tell("train", 1, 2)
    misbehave()
    folder = arguments[arguments.index("-o") + 1]
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "finetune.json"), "w") as stream:
        json.dump(OUTCOME | json.loads(os.environ.get("AIRWAYSEG_OUTCOME", "{}")), stream)


def cases(arguments: list[str]) -> None:
    """Add a case as it is, or remove one."""
    action, data, *options = arguments
    if action == "remove":
        shutil.rmtree(os.path.join(data, "cases", options[0]))
        return
    parser = argparse.ArgumentParser()
    for name in ("ct", "label", "initial", "origin", "name", "patient"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--force", action="store_true")
    case = parser.parse_args(options)
    misbehave()
    folder = os.path.join(data, "cases", case.name)
    if os.path.exists(folder) and not case.force:
        sys.exit(f"airwayseg-train: {folder} exists.")
    os.makedirs(folder, exist_ok=True)
    for name in filter(None, (case.ct, case.label, case.origin)):
        shutil.copy(name, folder)
    edited = None if case.initial is None else int((voxels_of(case.initial) != voxels_of(case.label)).sum())
    with open(os.path.join(folder, "case.json"), "w", encoding="utf-8") as stream:
        json.dump({"patient": case.patient, "edited_voxels": edited}, stream)


def voxels_of(path: str) -> np.ndarray:
    """The bytes of a mask."""
    with open(path, "rb") as stream:
        return np.frombuffer(stream.read().split(b"\n\n", 1)[1], np.uint8)


def simulate(arguments: list[str]) -> None:
    """A CT of 3 x 4 x 5 voxels."""
    folder = os.path.join(arguments[arguments.index("-o") + 1], "cases", "sim-1-0000")
    os.makedirs(folder)
    header = (
        "NRRD0004\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: 3 4 5\nendian: little\n"
        "space directions: (0.7,0,0) (0,0.7,0) (0,0,1)\nspace origin: (0,0,0)\nencoding: raw\n\n"
    )
    with open(os.path.join(folder, "ct.nrrd"), "wb") as stream:
        stream.write(header.encode() + np.full(60, -700, "<i2").tobytes())


if __name__ == "__main__":
    package, rest = sys.argv[2], sys.argv[3:]
    if package == "AirwaySegSlicer.commands.probe_child":
        with open(os.path.join(rest[0], "probe.json"), "w") as stream:
            json.dump(PROBE, stream)
    else:
        commands = {"segment": segment, "measure": measure, "finetune": finetune}
        commands |= {"simulate": simulate, "cases": cases}
        if package == "AirwaySegLib.early":
            rest = [rest[0], *(arguments_in(Path(rest[1])) or sys.exit(130))]
        commands[rest[0]](rest[1:])
