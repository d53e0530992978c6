"""Triton kernels: one file per operation, with the jitted functions and their launchers."""
