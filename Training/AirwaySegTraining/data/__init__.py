"""Training data: cases on disk, sampling, augmentation, labels without a person."""
