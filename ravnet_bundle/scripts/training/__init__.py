"""Only for training: scans with labels, their slices, augmentation, handlers."""
