"""The Python that the bundle's configs name; works as `scripts` (bundle root on the path) and as `ravnet_bundle.scripts`."""
