"""Where the repository lies: the tests are in folders of different depth."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
