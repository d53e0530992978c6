"""Triton kernels: one file per operation, the jitted functions beside what launches them."""
