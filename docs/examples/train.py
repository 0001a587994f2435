"""Train on your own folder: python train.py DATA RUN

DATA/cases/<id>/ holds ct.nrrd and label.nrrd (0 background, 1 airway, 2 left out of the loss).
"""

import sys
from pathlib import Path

from AirwaySegLib.progress import Bar
from AirwaySegTraining.fit.loop import fit
from AirwaySegTraining.fit.settings import FitSettings


def train(data: Path, run: Path, **changes: object) -> Path:
    """Go on from the bundled weights with your cases; returns the file of the new weights."""
    settings = FitSettings(**{"recipe": "default", "start_from": "default", "steps": 500, "rate": 2e-4, **changes})
    return fit([data], run, settings, Bar())


if __name__ == "__main__":
    print(train(Path(sys.argv[1]), Path(sys.argv[2])))
