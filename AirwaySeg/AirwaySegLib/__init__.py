"""AirwaySeg's library: chest CT in, airway tree out. It knows neither Slicer nor training."""

__version__ = "0.2.0"
