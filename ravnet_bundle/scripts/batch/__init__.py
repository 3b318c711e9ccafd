"""Studies in, results out: one or many, resumable, in one process or in many.

`Run` does the studies of one process, which shares them by claims with others; `team` hands studies to the workers of a
Dask cluster.
"""
