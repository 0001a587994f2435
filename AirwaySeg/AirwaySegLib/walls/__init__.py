"""The wall of each branch and the artery beside it, measured in the CT."""
