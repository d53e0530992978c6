"""Images, label maps and points: grids in world space, files, interpolation.

Imports runtime and ops.
"""

from typing import Any

from ..lazy import attach

__all__ = [
    "Grid",
    "PointTable",
    "Volume",
    "load_image",
    "load_labels",
    "load_mask",
    "read_table",
    "save_volume",
]

_load = attach(
    __name__,
    {
        "Grid": "grid",
        "PointTable": "points",
        "Volume": "grid",
        "load_image": "nifti",
        "load_labels": "nifti",
        "load_mask": "nifti",
        "read_table": "points",
        "save_volume": "nifti",
    },
)


def __getattr__(name: str) -> Any:
    """Load a public name from its module."""
    return _load(name)
