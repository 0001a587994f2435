"""Many CTs at once: what a folder or a list holds, the table of all cases, the report, progress, and clusters."""
