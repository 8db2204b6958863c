"""Programs in CUDA C++: a planned graph as a list of kernels, launched one after the other or replayed as one graph."""
