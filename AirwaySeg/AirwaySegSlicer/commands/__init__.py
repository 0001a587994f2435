"""Long work beside Slicer: console processes, what goes into them and what comes out."""
