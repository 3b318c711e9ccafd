"""How masks are measured: the paper's protocol and LiTS's."""
