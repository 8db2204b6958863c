"""For each kind of node: whether a tuned kernel computes it on a GPU, and how it is called."""
