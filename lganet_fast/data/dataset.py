"""Pairs of one split, prepared on access."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from threading import Lock
from typing import Any, Protocol

import nibabel as nib
from torch.utils.data import Dataset

from ..config.loading import Config
from ..config.schema import SPLITS, DataSection, Intensity
from ..errors import InputError
from ..volumes.grid import Array
from .layouts import find_cases
from .pair_files import Item, PairFiles
from .sample import Sample
from .synthetic import SyntheticPairs
from .volumes import Prepared, prepare

RECENT = 4  # volumes kept without data.cache: an atlas is always among them


class Pairs(Protocol):
    """The pairs of a split: `len` and `[i]`. data: the settings that they are prepared by."""

    data: DataSection

    def __len__(self) -> int:
        """Number of pairs."""

    def __getitem__(self, index: int) -> Sample:
        """One pair."""


class PairDataset(Dataset[Sample]):
    """The pairs of a split: `len` and `[i]`, a Sample; safe to read from several threads.

    cases: the files to read. data: how to prepare them. marks: read labels, points and masks too.
    Reading raises InputError, naming the file, if a pair cannot be used.
    """

    def __init__(self, cases: Sequence[PairFiles], data: DataSection, marks: bool = True) -> None:
        self.cases = list(cases)
        self.data = data
        self.marks = marks
        self._volumes = Shelf(None if data.cache else RECENT)

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.cases)

    def __getitem__(self, index: int) -> Sample:
        """One pair."""
        case, data = self.cases[index], self.data
        same = data.moving_intensity == "same"
        moving = self._prepared(case.moving, data.intensity if same else data.moving_intensity)
        fixed = self._prepared(case.fixed, data.intensity)
        check_paired(case, moving, fixed)
        return Sample(
            case.name,
            moving.image,
            fixed.image,
            fixed.affine,
            moving_affine=moving.affine,
            moving_labels=moving.labels,
            fixed_labels=fixed.labels,
            moving_points=moving.points,
            fixed_points=fixed.points,
            moving_mask=moving.mask,
            fixed_mask=fixed.mask,
        )

    def _prepared(self, item: Item, rule: Intensity) -> Prepared:
        return self._volumes.get(
            (item, rule), lambda: prepare(item, self.data, rule, marks=self.marks)
        )


def open_split(config: Config, split: str, marks: bool = True) -> Pairs:
    """The pairs of a split, "train", "val" or "test".

    marks: read labels, points and masks too, if there are any.
    Raises InputError if the data set does not have the configured layout.
    """
    if split not in SPLITS:
        raise InputError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    if config.data.layout == "synthetic":
        return SyntheticPairs(config.synthetic, config.data, split)
    return open_files(config.data, split, marks)


def open_files(data: DataSection, split: str, marks: bool = True) -> PairDataset:
    """The pairs of a split, as `open_split`. Raises InputError for pairs that are not of files."""
    return PairDataset(find_cases(data, split), data, marks)


def check_paired(case: PairFiles, moving: Prepared, fixed: Prepared) -> None:
    """Raise InputError if the sides differ in shape or orientation, or in number of points."""
    if moving.image.shape != fixed.image.shape:
        raise InputError(
            f"moving {case.moving.image} and fixed {case.fixed.image} must have one shape, have "
            f"{moving.image.shape} and {fixed.image.shape} voxels"
        )
    if fault := turned(moving.affine, fixed.affine):
        raise InputError(f"moving {case.moving.image} and fixed {case.fixed.image} {fault}")
    if moving.points is None or fixed.points is None:
        return
    if len(moving.points) != len(fixed.points):
        raise InputError(
            f"points {case.moving.points} and {case.fixed.points} must be paired by row, have "
            f"{len(moving.points)} and {len(fixed.points)}"
        )


def turned(moving: Array, fixed: Array) -> str:
    """The error if the voxels of two images are stored in different orientations, else ""."""
    one, other = ("".join(nib.aff2axcodes(affine)) for affine in (moving, fixed))
    if one == other:
        return ""
    return f"must be stored in one orientation, have {one} and {other}: reorient one of them"


class Shelf:
    """A cache of values that are made once, even if several threads request one at the same time.

    room: how many of the most recently used values are kept; None for all.
    """

    def __init__(self, room: int | None) -> None:
        self.room = room
        self._lock = Lock()
        self._kept: OrderedDict[Any, Future] = OrderedDict()

    def __reduce__(self) -> tuple[type[Shelf], tuple[int | None]]:
        """Pickle as an empty cache, since a lock cannot be pickled."""
        return Shelf, (self.room,)

    def get(self, key: Any, make: Callable[[], Prepared]) -> Prepared:
        """The value kept under the key, else the result of `make`; exceptions are not kept."""
        with self._lock:
            future = self._kept.get(key)
            mine = future is None
            if future is None:
                future = self._kept[key] = Future()
            self._kept.move_to_end(key)
            while self.room is not None and len(self._kept) > self.room:
                self._kept.popitem(last=False)
        if mine:
            try:
                future.set_result(make())
            except BaseException as error:
                with self._lock:
                    self._kept.pop(key, None)
                future.set_exception(error)
        return future.result()
