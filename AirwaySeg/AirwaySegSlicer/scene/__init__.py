"""The MRML scene: nodes, segments, overlays, edits, and what follows what."""
