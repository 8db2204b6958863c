"""The NumPy executor: the references, one after the other."""
