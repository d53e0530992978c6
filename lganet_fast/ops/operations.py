"""Every operation, and what besides its reference runs it."""

from __future__ import annotations

from typing import NamedTuple


class Paths(NamedTuple):
    """The faster paths of an operation.

    compiled: by the "extension", by "pytorch" (and so everywhere), or the name of the compiled
    operation that it calls; triton: whether it has a Triton kernel.
    """

    compiled: str | None = None
    triton: bool = False


PATHS = {
    "warp": Paths("extension"),
    "compose": Paths("extension"),
    "integrate": Paths("extension"),
    "correlate": Paths("extension", triton=True),
    "attention": Paths("pytorch", triton=True),
    "neighbour_attention": Paths("extension"),
    "local_ncc": Paths("extension"),
    "mutual_information": Paths("extension"),
    "gradient_loss": Paths("extension"),
    "resize": Paths("extension", triton=True),
    "invert": Paths("extension"),
    "norm_act": Paths("extension", triton=True),
    "convolve": Paths("extension", triton=True),
    "pool": Paths("pytorch", triton=True),
    "warp_sum": Paths("warp", triton=True),  # several calls of it
    "weigh": Paths("pytorch", triton=True),
    "feed_forward": Paths("pytorch", triton=True),
}
OPERATIONS = tuple(PATHS)
