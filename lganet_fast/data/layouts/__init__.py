"""Layouts of data sets: a function per layout, from a folder to pairs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ...config.schema import DataSection
from ...errors import InputError
from ...runtime.reading import reading
from ..pair_files import PairFiles
from .brains import ixi, lpba40, oasis, oasis_neurite
from .learn2reg import learn2reg
from .own import atlas, pairs

LAYOUTS: dict[str, Callable[[DataSection, Path, str], list[PairFiles]]] = {
    "lpba40": lpba40,
    "ixi": ixi,
    "oasis": oasis,
    "oasis-neurite": oasis_neurite,
    "learn2reg": learn2reg,
    "pairs": pairs,
    "atlas": atlas,
}


def find_cases(data: DataSection, split: str) -> list[PairFiles]:
    """The pairs of a split, in a fixed order; images are not opened.

    Raises InputError if the folder does not have the layout, or if the layout has no files. A split
    that a data set lacks is empty.
    """
    if data.layout not in LAYOUTS:
        raise InputError(f"data.layout {data.layout} has no files: its pairs are drawn at random")
    folder = data.folder()
    with reading(f"the data in {folder}"):  # a name may be invalid, a folder locked
        return LAYOUTS[data.layout](data, folder, split)
