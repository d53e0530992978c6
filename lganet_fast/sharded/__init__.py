"""Registration of one pair by several processes, each of which holds a slab of the volumes.

Tensors are (1, C, H, W, d): the planes along the third spatial axis that a process owns. In a NIfTI
file they are one run of bytes.
"""
