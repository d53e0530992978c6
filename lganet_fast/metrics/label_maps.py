"""Integer label maps: their labels, and the labels as consecutive numbers."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError

TABLE = 1 << 20  # label values up to which a look-up table is small


def listed(a: NDArray, b: NDArray, labels: Iterable[int] | None) -> list[int]:
    """The labels to score, ascending: those given, else all but 0 that occur in either map.

    Raises InputError if the shapes differ.
    """
    if a.shape != b.shape:
        raise InputError(f"label maps must have one shape, got {a.shape} and {b.shape}")
    if labels is not None:
        return sorted({int(label) for label in labels})
    return present(a, b)


def present(*maps: NDArray) -> list[int]:
    """The labels, except 0, that occur in any of the integer label maps, ascending."""
    found: set[int] = set()
    for x in maps:
        low, high = int(x.min(initial=0)), int(x.max(initial=0))
        if high - low < TABLE:
            found.update(
                (np.bincount((x.ravel().astype(np.intp)) - low).nonzero()[0] + low).tolist()
            )
        else:
            found.update(np.unique(x).tolist())
    return sorted(found - {0})


def coded(x: NDArray, labels: list[int]) -> NDArray[np.intp]:
    """Each voxel's position in the sorted `labels`, from 1; 0 for other values."""
    low, high = int(x.min(initial=0)), int(x.max(initial=0))
    if high - low < TABLE:
        table = np.zeros(high - low + 1, np.intp)
        for code, label in enumerate(labels, start=1):
            if low <= label <= high:
                table[label - low] = code
        return np.take(table, x.astype(np.intp) - low)
    if not labels:
        return np.zeros(x.shape, np.intp)
    values = np.array(labels)
    place = np.minimum(np.searchsorted(values, x), len(values) - 1)
    return np.where(values[place] == x, place + 1, 0)
