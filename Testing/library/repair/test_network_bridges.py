"""Bridges by a network, on a stand-in that predicts what is drawn into the CT, so that every answer is known."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from AirwaySegLib.errors import AirwaySegError, Cancelled
from AirwaySegLib.masks.components import label_components
from AirwaySegLib.networks.connection_net import Connector
from AirwaySegLib.networks.weights import ModelInfo, save_weights
from AirwaySegLib.repair import network_bridges as connecting
from AirwaySegLib.repair.bridge import NETWORK
from AirwaySegLib.repair.network_bridges import load_connector, network_bridges, touched_by

SPACING_MM = (0.7, 0.7, 0.7)
SHAPE = (48, 48, 160)
AIR, TISSUE = -1000, 200


class SeesAir(nn.Module):
    """Predicts the darkness of the CT: 1 at -1000 HU, 0 at 200 HU. Counts the patches and batches that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[1:] == (2, 64, 64, 64) and x.min() >= 0 and x.max() <= 1
        self.batches.append(len(x))
        return torch.logit(1 - x[:, :1].float(), eps=1e-4)


def a_tube(length: int, gaps: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """A tube along x of 5 x 5 voxels, its CT, and the mask in which stretches (from, to) are missing."""
    tube = np.zeros(SHAPE, bool)
    tube[20:25, 20:25, 5 : 5 + length] = True
    mask = tube.copy()
    for start, stop in gaps:
        mask[:, :, start:stop] = False
    return np.where(tube, AIR, TISSUE).astype(np.int16), mask


def test_a_gap_is_bridged_with_what_is_missing_in_it() -> None:
    hu, mask = a_tube(100, [(50, 58)])
    (bridge,) = network_bridges(hu, label_components(mask), SPACING_MM, SeesAir())
    wanted = np.argwhere((hu == AIR) & ~mask)
    assert sorted(map(tuple, bridge.voxels)) == sorted(map(tuple, wanted))
    assert (bridge.joins, bridge.method) == ((1, 2), NETWORK)
    assert bridge.length_mm == pytest.approx(9 * 0.7)
    assert bridge.score == pytest.approx(1, abs=0.01)


def test_nothing_missing_in_the_ct_gives_no_bridge() -> None:
    hu, mask = a_tube(100, [(50, 58)])
    assert network_bridges(np.full_like(hu, TISSUE), label_components(mask), SPACING_MM, SeesAir()) == []


def test_what_reaches_one_component_only_is_no_bridge() -> None:
    hu, mask = a_tube(100, [(50, 58)])
    hu[:, :, 56:60] = TISSUE
    assert network_bridges(hu, label_components(mask), SPACING_MM, SeesAir()) == []


def test_a_doubtful_gap_is_bridged_with_a_score_below_a_half() -> None:
    hu, mask = a_tube(100, [(30, 38), (60, 68)])
    hu[:, :, 64:66] = np.where(hu[:, :, 64:66] == AIR, TISSUE - 420, TISSUE)  # 0.35 of the way to air
    sure, doubtful = network_bridges(hu, label_components(mask), SPACING_MM, SeesAir())
    assert sure.score > 0.9
    assert doubtful.score == 0.3
    assert set(doubtful.joins) != set(sure.joins)


def test_gaps_one_behind_the_other_are_all_bridged() -> None:
    hu, mask = a_tube(140, [(40, 46), (70, 78), (110, 114)])
    bridges = network_bridges(hu, label_components(mask), SPACING_MM, SeesAir())
    assert sorted(bridge.joins for bridge in bridges) == [(1, 4), (2, 3), (2, 4)]  # larger pieces come first
    joined = mask.copy()
    for bridge in bridges:
        joined[tuple(bridge.voxels.T)] = True
    assert label_components(joined).max() == 1


def test_a_gap_that_only_shows_when_another_is_closed_is_found() -> None:
    """Two pieces that lie side by side hide from attention how near a third is; once they are one, it stands out."""
    labels = np.zeros(SHAPE, np.int32)
    labels[20:25, 20:25, 5:60], labels[20:25, 27:32, 5:60], labels[20:25, 20:32, 74:140] = 1, 2, 3
    hu = np.full(SHAPE, TISSUE, np.int16)
    hu[20:25, 25:27, 10:20] = AIR
    hu[20:25, 22:24, 60:74] = AIR
    joins = {bridge.joins for bridge in network_bridges(hu, labels, SPACING_MM, SeesAir())}
    assert joins == {(1, 2), (1, 3)}


def test_a_speck_within_a_bridge_belongs_to_it_and_a_speck_alone_is_not_joined() -> None:
    hu, mask = a_tube(100, [(50, 58)])
    mask[22, 22, 54] = True
    mask[22, 40, 30] = True
    hu[22, 25:40, 30] = AIR
    labels = label_components(mask)
    (bridge,) = network_bridges(hu, labels, SPACING_MM, SeesAir())
    assert bridge.joins == (1, 2, labels[22, 22, 54])
    assert not mask[tuple(bridge.voxels.T)].any()


def test_patches_come_in_batches_and_one_patch_shows_neighbouring_gaps(monkeypatch: pytest.MonkeyPatch) -> None:
    hu, mask = a_tube(140, [(40, 44), (46, 50), (110, 114)])
    network, reported = SeesAir(), []
    network_bridges(hu, label_components(mask), SPACING_MM, network, progress=lambda *now: reported.append(now))
    assert network.batches[0] == 2
    assert reported[:2] == [("connect", 0, 2), ("connect", 2, 2)]


def test_a_patch_beyond_the_edge_of_the_volume_is_answered() -> None:
    hu, mask = a_tube(30, [(12, 17)])
    small = (slice(18, 28), slice(18, 28), slice(0, 40))
    (bridge,) = network_bridges(hu[small], label_components(mask[small]), SPACING_MM, SeesAir())
    assert len(bridge.voxels) == 5 * 25


@pytest.mark.parametrize(("width", "bridges"), [(15, 1), (17, 0)])
def test_gaps_up_to_eleven_millimetres_are_asked_about_from_end_to_end(width: int, bridges: int) -> None:
    hu, mask = a_tube(120, [(50, 50 + width)])
    assert len(network_bridges(hu, label_components(mask), SPACING_MM, SeesAir())) == bridges


def test_far_from_gaps_nothing_is_asked() -> None:
    hu, mask = a_tube(100, [(50, 54)])
    hu[20:25, 20:25, 105:125] = AIR  # the tube goes on where its label ends
    hu[20:25, 25:45, 52] = AIR
    (bridge,) = network_bridges(hu, label_components(mask), SPACING_MM, SeesAir())
    assert bridge.voxels[:, 2].max() <= 54 and bridge.voxels[:, 1].max() < 45


@pytest.mark.parametrize("voxels", [0, 1, 400])
def test_without_two_components_there_is_nothing_to_look_at(voxels: int) -> None:
    labels = np.zeros(SHAPE, np.int32)
    labels.ravel()[:voxels] = 1
    network = SeesAir()
    assert network_bridges(np.zeros(SHAPE, np.int16), labels, SPACING_MM, network) == []
    assert network.batches == []


def test_it_can_be_stopped() -> None:
    def stop(_stage: str, _done: int, _total: int) -> None:
        raise Cancelled

    hu, mask = a_tube(100, [(50, 58)])
    with pytest.raises(Cancelled):
        network_bridges(hu, label_components(mask), SPACING_MM, SeesAir(), progress=stop)


def test_a_ct_of_another_shape_is_refused() -> None:
    with pytest.raises(AirwaySegError, match="has shape"):
        network_bridges(np.zeros((4, 4, 4), np.int16), np.zeros(SHAPE, np.int32), SPACING_MM, SeesAir())


def test_touching_counts_corners_and_knows_whose_piece_it_is() -> None:
    labels = np.zeros((5, 5, 5), np.int32)
    labels[0, 0, 0], labels[2, 2, 4] = 7, 3
    voxels = np.array([[1, 1, 1], [2, 2, 3], [4, 4, 0]], np.int32)
    assert touched_by(voxels, np.array([0, 0, 1]), labels).tolist() == [[0, 3], [0, 7]]


def test_a_connector_is_loaded_by_its_file_and_one_of_another_window_is_refused(tmp_path) -> None:
    info = ModelInfo("mine", 2, 1, "batch", connecting.BREAKAGE_WINDOW_HU, None, (64, 64, 64), architecture="connector")
    save_weights(tmp_path / "mine.safetensors", Connector(), info)
    connector, found, _ = load_connector(tmp_path / "mine.safetensors")
    assert found == info and not connector.training
    other = ModelInfo("other", 2, 1, "batch", (-900, 100), None, (64, 64, 64), architecture="connector")
    save_weights(tmp_path / "other.safetensors", Connector(), other)
    with pytest.raises(AirwaySegError, match="window"):
        load_connector(tmp_path / "other.safetensors")
