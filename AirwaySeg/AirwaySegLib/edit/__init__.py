"""Editing by branches: growing a missed airway from a click, and cutting."""
