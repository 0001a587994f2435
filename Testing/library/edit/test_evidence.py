"""The evidence of CT and network: its filters."""

import numpy as np
import pytest
from scipy import ndimage

from AirwaySegLib.edit.evidence import extreme_in


@pytest.mark.parametrize("shape", [(9, 12, 15), (1, 3, 20)])
@pytest.mark.parametrize("size", [[3, 3, 3], [5, 7, 1], [9, 3, 5]])
def test_the_filters_are_those_of_scipy(shape, size):
    values = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    largest = extreme_in(values, size, np.maximum)
    assert np.array_equal(largest, ndimage.maximum_filter(values, size))
    assert np.array_equal(extreme_in(largest, size, np.minimum), ndimage.grey_closing(values, size))
