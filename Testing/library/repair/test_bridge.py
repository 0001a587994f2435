"""A bridge says what it joins, and refuses to be none."""

import numpy as np
import pytest

from AirwaySegLib.repair.bridge import NETWORK, PATH, Bridge

VOXELS = np.array([[1, 2, 3], [1, 2, 4]], np.int32)


def test_a_bridge_keeps_what_it_joins_and_how():
    bridge = Bridge((1, 4), VOXELS, 0.75, PATH, 2.5)
    assert (bridge.joins, bridge.score, bridge.method, bridge.length_mm) == ((1, 4), 0.75, "path", 2.5)
    assert bridge.facts == {}


@pytest.mark.parametrize("joins", [(1,), (2, 1), (3, 3), (0, 2), ()])
def test_a_bridge_joins_at_least_two_components_in_ascending_order(joins):
    with pytest.raises(ValueError, match="two or more"):
        Bridge(joins, VOXELS, 0.5, NETWORK, 1.0)


@pytest.mark.parametrize("voxels", [np.zeros((0, 3), np.int32), np.zeros((3, 2), np.int32), VOXELS.astype(int)])
def test_a_bridge_has_whole_voxels(voxels):
    with pytest.raises(ValueError, match="voxels"):
        Bridge((1, 2), voxels, 0.5, NETWORK, 1.0)


@pytest.mark.parametrize(
    ("score", "method", "length_mm"),
    [(1.1, PATH, 1.0), (float("nan"), PATH, 1.0), (0.5, "guess", 1.0), (0.5, PATH, -1.0)],
)
def test_score_method_and_length_must_make_sense(score, method, length_mm):
    with pytest.raises(ValueError, match="score"):
        Bridge((1, 2), VOXELS, score, method, length_mm)
