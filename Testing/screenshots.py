"""Makes the pictures in Resources/Screenshots/ from the program itself, on a simulated chest CT.

    .venv/bin/python Testing/screenshots.py
"""

import shutil
import sys
import tempfile
from pathlib import Path

from AirwaySegLib.__main__ import main as airwayseg
from AirwaySegTraining.__main__ import main as airwayseg_train

ROOT = Path(__file__).parents[1]
SEED = "7"


def main() -> int:
    """Simulate, segment, keep the preview and the tree."""
    screenshots = ROOT / "Resources" / "Screenshots"
    screenshots.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        if airwayseg_train(["simulate", "-o", folder, "--cases", "1", "--seed", SEED]):
            return 1
        ct = next(Path(folder).glob("cases/[!.]*/ct.nrrd"))
        if airwayseg(["segment", str(ct), "-o", f"{folder}/result"]):
            return 1
        for name in ("preview.png", "tree.png"):
            shutil.copy(Path(folder) / "result" / name, screenshots / name)
            print(screenshots / name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
