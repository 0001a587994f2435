"""From mask to tree: skeleton, centerlines, radii, names, lobes, distances, suspects, export."""
