"""Editing by branches: growing a missed airway from a click, cutting, and the origin of every voxel."""
