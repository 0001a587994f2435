"""The MRML scene: nodes, segments, overlays, edits, and keeping results up to date."""
