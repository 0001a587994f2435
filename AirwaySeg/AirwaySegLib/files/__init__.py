"""What is read from and written to disk: volumes, DICOM, checks, atomic writes, locks."""
