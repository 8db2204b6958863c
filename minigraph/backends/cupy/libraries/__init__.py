"""NVIDIA's libraries of kernels, asked pattern by pattern whether they compute it; all of them may be missing."""
