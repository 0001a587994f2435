"""Anatomy of a chest CT that is found without a network.

`preprocessing`: body, lungs, crop box, search region, HU calibration, resampling. `trachea`: the search for the trachea
and the carina.
"""
