"""AirwaySeg's training library: simulated chest CTs, sampling, losses and the training loop."""
