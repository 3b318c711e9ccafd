"""The Python that the configs name; works as `scripts` (bundle root on the path) and as `ravnet_bundle.scripts`."""
