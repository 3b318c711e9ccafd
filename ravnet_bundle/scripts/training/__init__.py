"""What only a training needs: scans with labels, their slices, augmentation, handlers."""
