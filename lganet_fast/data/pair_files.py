"""The result of a layout: the files of each pair, and the pairs of each split."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from ..config.schema import DataSection
from ..errors import InputError

T = TypeVar("T")
OTHER = {".hdr": ".img", ".img": ".hdr"}


@dataclass(frozen=True)
class Item:
    """One side of a pair.

    name: the subject's. image, labels, points, mask: files, None if there is none. slots: positions
    of the image and its labels in the tuple in the image's file, a pickle.
    """

    name: str
    image: Path
    labels: Path | None = None
    points: Path | None = None
    mask: Path | None = None
    slots: tuple[int, int] | None = None

    def bare(self) -> Item:
        """The image alone."""
        return replace(self, labels=None, points=None, mask=None)

    @property
    def files(self) -> list[Path]:
        """All files that it is read from, the second one of .hdr with .img included."""
        given = [x for x in (self.image, self.labels, self.points, self.mask) if x is not None]
        others = [x.with_suffix(OTHER[x.suffix]) for x in given if x.suffix in OTHER]
        return [*given, *(x for x in others if x.exists())]


@dataclass(frozen=True)
class PairFiles:
    """A pair of items."""

    moving: Item
    fixed: Item

    @property
    def name(self) -> str:
        """Moving to fixed."""
        return f"{self.moving.name}_to_{self.fixed.name}"


Case = PairFiles  # its former name


def listing(folder: Path, *endings: str) -> list[Path]:
    """A folder's files with one of some endings, in order. Raises InputError if there is none."""
    if not folder.is_dir():
        raise InputError(f"{folder} {'is not a folder' if folder.exists() else 'does not exist'}")
    found = [
        path
        for path in sorted(folder.iterdir())
        if path.name.lower().endswith(endings) and not path.name.startswith(".")
    ]
    if not found:
        raise InputError(f"{folder} has no file that ends in {' or '.join(endings)}")
    return found


def with_atlas(
    data: DataSection, split: str, atlas: Item, items: Sequence[Item]
) -> list[PairFiles]:
    """Each item paired with the atlas; for training, all ordered pairs if so configured."""
    if split == "train" and data.pairing == "all":
        return [PairFiles(moving, fixed) for fixed in items for moving in items if moving != fixed]
    if data.atlas == "fixed":
        return [PairFiles(item, atlas) for item in items]
    return [PairFiles(atlas, item) for item in items]


def chain(items: Sequence[Item]) -> list[PairFiles]:
    """Each item moving to the next one, as Learn2Reg pairs OASIS' subjects."""
    return [PairFiles(moving, fixed) for moving, fixed in itertools.pairwise(items)]


def divided(
    items: Sequence[T], split: str, validation: int | float, testing: int | float = 0
) -> list[T]:
    """The items of a split: the last ones for testing, those before for validation.

    validation, testing: counts, or fractions of all. Raises InputError if none is left to train on.
    """
    total = len(items)
    val, test = (
        round(total * wanted) if isinstance(wanted, float) else wanted
        for wanted in (validation, testing)
    )
    if val + test >= total:
        raise InputError(
            f"data.validation and data.testing hold out {val} and {test} of {total}: none is left"
        )
    ends = {"train": (0, total - test - val), "val": (total - test - val, total - test)}
    return list(items[slice(*ends.get(split, (total - test, total)))])


def random_pairs(
    moving: Sequence[Item], fixed: Sequence[Item], count: int, seed: int
) -> list[PairFiles]:
    """`count` different pairs of different subjects, the same for the same seed.

    count: 0 for the length of the longer sequence. Raises InputError if there are fewer.
    """
    count = count or max(len(moving), len(fixed))
    possible = sum(m.name != f.name for m in moving for f in fixed)
    if count > possible:
        raise InputError(f"data.pairs asks for {count} pairs, but there are only {possible}")
    random = np.random.default_rng(seed)
    found: dict[tuple[str, str], PairFiles] = {}
    while len(found) < count:
        rows = random.permutation(max(len(moving), len(fixed)))
        columns = random.permutation(len(rows))
        for i, j in zip(rows, columns, strict=True):
            case = PairFiles(moving[i % len(moving)], fixed[j % len(fixed)])
            if case.moving.name != case.fixed.name and len(found) < count:
                found.setdefault((case.moving.name, case.fixed.name), case)
    return list(found.values())
