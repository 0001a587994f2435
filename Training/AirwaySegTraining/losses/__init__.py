"""The losses and voxel weights of the papers.

For another loss open two files: its function goes into `equations` (the formulas), its row into `terms` (the table of
the losses that a recipe can name). `weight_maps` has the voxel weights and the maps from which they are computed.
"""
