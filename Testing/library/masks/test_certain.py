"""Which pieces beside the tree are airway for certain."""

import numpy as np

from AirwaySegLib.masks.certain import SMALLEST_PIECE_VOXELS, certain_pieces, certainty


def test_certain_pieces_keep_their_numbers_and_doubtful_and_tiny_ones_go():
    labels = np.zeros((3, 3, 40), np.uint16)
    labels[0, 0, :30], labels[1, 1, :30], labels[2, 2, : SMALLEST_PIECE_VOXELS - 1] = 4, 7, 9
    probability = np.zeros(labels.shape, np.uint8)
    probability[labels == 4], probability[labels == 7], probability[labels == 9] = 240, 150, 255
    assert np.allclose(certainty(labels, probability)[[4, 7, 9]], [240 / 255, 150 / 255, 1])
    found = certain_pieces(labels, probability)
    assert found.dtype == labels.dtype and set(np.unique(found)) == {0, 4} and np.array_equal(found == 4, labels == 4)


def test_the_probability_of_being_airway_decides_where_it_is_known():
    labels = np.zeros((2, 2, 60), np.uint16)
    labels[0, 0, :30], labels[1, 1, :30] = 2, 3
    probability = np.full(labels.shape, 250, np.uint8)  # gas of the oesophagus is as probable as an airway
    found = certain_pieces(labels, probability, np.array([0, 1, 0.2, 0.9, 0.9]))
    assert np.array_equal(found, np.where(labels == 3, 3, 0))


def test_without_pieces_there_are_none():
    nothing = np.zeros((2, 2, 2), np.uint16)
    assert not certain_pieces(nothing, nothing.astype(np.uint8)).any()
