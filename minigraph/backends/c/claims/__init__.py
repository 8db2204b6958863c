"""How the tuned float32 kernels are called: a file for each family of ops."""
