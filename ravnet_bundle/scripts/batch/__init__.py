"""Many studies, resumable, in one process or many.

`Run` does the studies of one process, which shares them with others by claims. `team` gives studies to Dask workers.
"""
