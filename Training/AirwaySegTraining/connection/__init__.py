"""The network that connects broken branches: simulated breaks, their patches, its training."""
