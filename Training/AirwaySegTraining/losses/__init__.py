"""The losses and voxel weights of the papers, one short function for each equation."""
