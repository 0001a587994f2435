"""Makes a release: `version X.Y.Z` writes the version where it stands, `check` builds the wheel and tries it alone.

Needs only Python 3.11 or newer, git and a network. Nothing is published: the last line says what is left to do.
"""

from __future__ import annotations

import argparse
import datetime
import os
import re
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VERSION_FILE = ROOT / "AirwaySeg" / "AirwaySegLib" / "__init__.py"
CHANGELOG = ROOT / "CHANGELOG.md"
CITATION = ROOT / "CITATION.cff"
DIST = ROOT / "dist"
MUST_CARRY = (
    "AirwaySegLib/Models/default.safetensors",
    "AirwaySegLib/Models/breakage.safetensors",
    "AirwaySegTraining/Configs/default.toml",
    "AirwaySegTraining/Configs/rehearsal.npz",
)
"""Without these files the installed commands do not work."""


class Failed(Exception):
    """One plain sentence that says what went wrong."""


def run(*command: str | Path, cwd: Path = ROOT) -> None:
    """Show and run a command without our own folders on Python's path."""
    words = [str(word) for word in command]
    print("$", " ".join([Path(words[0]).name, *words[1:]]), flush=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if subprocess.run(words, cwd=cwd, env=environment, stdin=subprocess.DEVNULL).returncode:
        raise Failed(f"{Path(words[0]).name} failed.")


def replaced_once(path: Path, pattern: str, new: str) -> None:
    """Replace the one place in a file that matches."""
    text = path.read_text("utf-8")
    changed, count = re.subn(pattern, new, text, count=1, flags=re.MULTILINE)
    if not count:
        raise Failed(f"{path.name} has no place for the version ({pattern}).")
    path.write_text(changed, "utf-8", newline="\n")


def set_version(version: str) -> None:
    """Write the version into the package, the changelog (with today's date) and the citation."""
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        raise Failed(f"{version!r} is no version of the form 1.2.3.")
    if f"## [{version}]" in CHANGELOG.read_text("utf-8").replace(f"## [{version}] - unreleased", ""):
        raise Failed(f"The changelog has a release {version} already.")
    today = datetime.date.today().isoformat()
    replaced_once(CHANGELOG, r"^## \[[^\]]*\] - unreleased$", f"## [{version}] - {today}")
    replaced_once(VERSION_FILE, r'^__version__ = ".*"$', f'__version__ = "{version}"')
    replaced_once(CITATION, r"^version: .*$", f"version: {version}")
    print(f'Next: read the changelog, then git commit -am "COMP: Version {version}" && git tag v{version}')


def check() -> None:
    """Build the wheel from what is committed, install it alone, simulate a CT and segment it."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        sources, environment, sample = place / "sources", place / "environment", place / "sample"
        sources.mkdir()
        run("git", "archive", "--format=tar", "-o", place / "sources.tar", "HEAD")
        run(sys.executable, "-m", "tarfile", "-e", place / "sources.tar", sources)
        run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", DIST, sources)
        wheel = max(DIST.glob("airwayseg-*.whl"), key=lambda path: path.stat().st_mtime)
        check_contents(wheel)
        venv.EnvBuilder(with_pip=True).create(environment)
        scripts = environment / ("Scripts" if os.name == "nt" else "bin")
        constraints = ROOT / "constraints.txt"
        run(scripts / "python", "-m", "pip", "install", "--quiet", "-c", constraints, wheel)
        run(scripts / "airwayseg", "weights", "list", cwd=place)
        run(scripts / "airwayseg-train", "simulate", "-o", sample, "--cases", "1", "--seed", "7", cwd=place)
        [ct] = sample.glob("cases/[!.]*/ct.nrrd")
        run(scripts / "airwayseg", "segment", ct, "-o", place / "result", cwd=place)
        if not (place / "result" / "report.json").is_file():
            raise Failed("The installed wheel left no result.")
    print(f"{wheel} works in an environment of its own.")


def check_contents(wheel: Path) -> None:
    """Raise Failed if the wheel lacks weights or recipes."""
    with zipfile.ZipFile(wheel) as archive:
        missing = sorted(set(MUST_CARRY) - set(archive.namelist()))
    if missing:
        raise Failed(f"{wheel.name} lacks {', '.join(missing)}.")


def main() -> int:
    """Exit code 0 when all went well, 1 with one sentence when not."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    commands.add_parser("check", help="build the wheel and try it in an empty environment")
    commands.add_parser("version", help="write a version where it stands").add_argument("version")
    options = parser.parse_args()
    try:
        if options.command == "check":
            check()
        else:
            set_version(options.version)
    except (Failed, OSError) as failure:
        print(failure, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
