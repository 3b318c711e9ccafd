"""The configs' inference: a network segments a volume, and three-dimensional steps correct the mask."""
