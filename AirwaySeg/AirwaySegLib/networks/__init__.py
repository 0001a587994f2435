"""The networks, their weights, and how they run on a GPU or a CPU."""
