"""Training of the connection network, which joins fragments to the tree.

`breaks` simulates breaks in a tree, `distractors` adds false pieces beside it, `pool` stores the patches, and `train`
is the training.
"""
