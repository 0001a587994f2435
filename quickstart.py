"""The README's two commands: segment a simulated chest CT (no argument), or run every check (--test).

Needs only Python 3.11 or newer and a network; keeps everything it installs in `.venv` beside this file.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

OLDEST_PYTHON = (3, 11)
FREE_BYTES_NEEDED = 4 * 10**9
ROOT = Path(__file__).resolve().parent
ENVIRONMENT = ROOT / ".venv"
SCRIPTS = ENVIRONMENT / ("Scripts" if os.name == "nt" else "bin")
LOG = ENVIRONMENT / "install.log"
SAMPLE = ROOT / "sample"
# What pip prints, in lower case, and what it means for the user.
PIP_CAUSES = (
    ("no space left", "the disk is full"),
    ("failed to establish a new connection", "the package index cannot be reached; is there a network?"),
    ("name resolution", "the package index cannot be reached; is there a network?"),
    ("no matching distribution found", "a package is not to be had for this Python version or this computer"),
)


class Failed(Exception):
    """One plain sentence that says what went wrong."""


def run(*command: str | Path, threads: int = 0) -> int:
    """Show the command, run it in the project's folder and return its exit code; threads 0 leaves the choice to it."""
    words = [str(word) for word in command]
    print("$", " ".join([Path(words[0]).stem, *words[1:]]), flush=True)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)} if threads else None
    return subprocess.run(words, cwd=ROOT, stdin=subprocess.DEVNULL, env=environment).returncode


def environment_works() -> bool:
    """Whether `.venv` exists whole: one that was interrupted half-way has no pip."""
    python = SCRIPTS / "python"
    if not shutil.which(python):
        return False
    return subprocess.run([python, "-m", "pip", "--version"], capture_output=True).returncode == 0


def create_environment() -> None:
    """Make `.venv`, or keep the one that works."""
    if environment_works():
        return
    if shutil.disk_usage(ROOT).free < FREE_BYTES_NEEDED:
        raise Failed(f"{ROOT} has less than {FREE_BYTES_NEEDED / 1e9:.0f} GB of free disk.")
    print(f"Making a virtual environment in {ENVIRONMENT}", flush=True)
    try:
        venv.EnvBuilder(with_pip=True, clear=True).create(ENVIRONMENT)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Failed(
            f"No virtual environment could be made in {ENVIRONMENT} (on Debian and Ubuntu it needs "
            f"the package python3-venv): {error}"
        ) from error


def install(extras: str) -> None:
    """Install the project with these extras in its pinned versions; nothing to do where that was done before."""
    create_environment()
    wanted = (ROOT / "pyproject.toml").read_bytes() + (ROOT / "constraints.txt").read_bytes() + extras.encode()
    done = ENVIRONMENT / f"installed-{hashlib.sha256(wanted).hexdigest()[:16]}"
    if done.exists():
        return
    print(f"Installing airwayseg[{extras}]: a few minutes, see {LOG}", flush=True)
    pip = [SCRIPTS / "python", "-m", "pip", "install", "--no-input", "-c", "constraints.txt", "-e", f".[{extras}]"]
    with LOG.open("w", encoding="utf-8") as log:
        code = subprocess.run(pip, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT).returncode
    if code:
        cause = cause_of_failure(LOG.read_text(encoding="utf-8", errors="replace"))
        raise Failed(f"Installing failed: {cause} ({LOG})")
    done.touch()


def cause_of_failure(log: str) -> str:
    """What the user can mend, or else the last error line of pip's log."""
    known = [cause for sign, cause in PIP_CAUSES if sign in log.lower()]
    errors = [line for line in log.splitlines() if "error" in line.lower()]
    return (known or errors[-1:] or ["pip gave no reason"])[0]


def try_it() -> int:
    """Simulate a chest CT, segment it with the bundled weights and say where mask and picture are."""
    install("openvino")
    cts = sorted(SAMPLE.glob("cases/[!.]*/ct.nrrd"))
    if not cts:
        if run(SCRIPTS / "airwayseg-train", "simulate", "-o", SAMPLE, "--cases", "1", "--seed", "7"):
            raise Failed("The sample CT could not be simulated.")
        cts = sorted(SAMPLE.glob("cases/[!.]*/ct.nrrd"))
    result = SAMPLE / "result"
    if run(SCRIPTS / "airwayseg", "segment", cts[0], "-o", result, "--force"):
        raise Failed("The sample CT could not be segmented.")
    print(f"\nSample CT:   {cts[0]}\nAirway mask: {result / 'airways.nrrd'}\nPicture:     {result / 'preview.png'}")
    print(f"Your own CT: {SCRIPTS / 'airwayseg'} segment CT -o FOLDER")
    return 0


def test() -> int:
    """Run the linter, the type checker and every test; go on after a failure so that one run shows them all."""
    install("dev,openvino,slicerhost")
    python = SCRIPTS / "python"
    workers = 2
    threads = max(1, (os.cpu_count() or 1) // workers)
    pytest = (python, "-m", "pytest", "-n", str(workers))
    failed = [
        tool
        for tool, code in {
            "ruff": run(python, "-m", "ruff", "check", "."),
            "ruff format": run(python, "-m", "ruff", "format", "--check", "."),
            "mypy": run(python, "-m", "mypy"),
            "pytest": run(*pytest, threads=threads),
        }.items()
        if code
    ]
    if failed:
        raise Failed(f"Not passed: {', '.join(failed)}.")
    return 0


def main() -> int:
    """Exit code 0 when all went well, 1 with one sentence when not."""
    if sys.version_info[:2] < OLDEST_PYTHON:
        print("AirwaySeg needs Python 3.11 or newer; this is Python {}.{}.".format(*sys.version_info[:2]))
        return 1
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--test", action="store_true", help="install what the tests need and run every check")
    arguments = parser.parse_args()
    try:
        return test() if arguments.test else try_it()
    except (Failed, OSError) as failure:
        print(failure, file=sys.stderr)
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
