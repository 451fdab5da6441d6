"""Computes work units: the kernel library and the executor processes that run it."""
