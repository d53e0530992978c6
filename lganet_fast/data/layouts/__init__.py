"""How data sets lie in their folders: a function per layout, from a folder to pairs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ...sections import DataSection
from ..case import Case
from .lpba40 import lpba40

Layout = Callable[[DataSection, Path, str], list[Case]]

LAYOUTS: dict[str, Layout] = {"lpba40": lpba40}


def find_cases(data: DataSection, split: str) -> list[Case]:
    """The pairs of a split, in an order that never changes; their files are not opened.

    Raises InputError where the folder is not laid out so. A split that a data set does not have is
    empty.
    """
    return LAYOUTS[data.layout](data, data.folder(), split)
