"""PNG pictures of a result.

`preview`: the tree and three slices. `tree_pictures`: the tree by generation, and the radius plot. `repair_pictures`:
the tree before and after a repair.
"""
