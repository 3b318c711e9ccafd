"""The configs' inference: a network sees a volume, and three-dimensional steps correct what it found."""
