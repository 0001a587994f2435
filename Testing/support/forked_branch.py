"""Drawn airways in one plane: a trunk, its branch, and that branch's child; for tests of edits."""

from phantoms import Tube

SPACING_MM = (0.8, 0.7, 0.7)
SHAPE = (100, 60, 110)
TRUNK = Tube((75.0, 20.0, 20.0), (10.0, 20.0, 20.0), 4.0, 3.5)
BRANCH = Tube((50.0, 20.0, 20.0), (50.0, 20.0, 60.0), 2.0, 1.6)
CHILD = Tube((50.0, 20.0, 45.0), (65.0, 20.0, 60.0), 1.6, 1.4)
