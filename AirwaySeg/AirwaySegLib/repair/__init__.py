"""Fragments joined to the tree: bridges, their scores, and the decision about each."""
