"""The user's own data: a table of pairs, or an atlas and a folder of images."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

from ...config.schema import SPLITS, DataSection
from ...errors import InputError
from ...volumes.nifti import READABLE, stem
from ...volumes.pair_table import PairRow, read_pair_table
from ..pair_files import Item, PairFiles, divided, listing, with_atlas


def pairs(data: DataSection, root: Path, split: str) -> list[PairFiles]:
    """A table of pairs (`volumes.pair_table`); masks and names are not read.

    root: the file, or a folder with `pairs.csv`. Points without a header are in voxels, with x,y,z
    in LPS mm. Without a column `split` the last `testing` rows are for testing, the `validation`
    rows before them for validation.
    """
    table = root / "pairs.csv" if root.is_dir() else root
    rows = read_pair_table(table)
    if rows[0].split is None:
        chosen = divided(rows, split, data.validation, data.testing)
    else:
        for row in rows:
            if row.split not in SPLITS:
                raise InputError(f"{row.place}: split must be one of {', '.join(SPLITS)}")
        chosen = [row for row in rows if row.split == split]
    cases = [PairFiles(*(_side(row, side) for side in ("moving", "fixed"))) for row in chosen]
    times = Counter(case.name for case in cases)
    return [case if times[case.name] == 1 else _longer(case, table.parent) for case in cases]


def atlas(data: DataSection, root: Path, split: str) -> list[PairFiles]:
    """`atlas.nii.gz`, `images/`, and optionally `labels/` with files of the same names.

    Images are in `images/train`, `images/val` and `images/test`, or all in `images`: then the last
    `testing` are for testing, those before for validation. A training image may lack labels.
    """
    found = [path for path in listing(root, *READABLE) if stem(path) == "atlas"]
    if len(found) != 1:
        raise InputError(f"{root} must have one image called atlas, such as atlas.nii.gz")
    images = root / "images"
    if any((images / name).is_dir() for name in SPLITS):
        files = listing(images / split, *READABLE) if (images / split).is_dir() else []
    else:
        files = divided(listing(images, *READABLE), split, data.validation, data.testing)

    def labels(image: Path) -> Path | None:
        path = root / "labels" / image.name
        wanted = path.is_file() or (split != "train" and path.parent.is_dir())
        return path if wanted else None

    middle, *items = (Item(stem(path), path, labels(path)) for path in (*found, *files))
    return with_atlas(data, split, middle, items)


def _side(row: PairRow, side: str) -> Item:
    image, labels, points = (
        row.files.get(name) for name in (side, f"{side}_labels", f"{side}_points")
    )
    assert image is not None
    return Item(stem(image), image, labels, points)


def _longer(case: PairFiles, folder: Path) -> PairFiles:
    """The pair with longer names, which distinguish files of the same name."""

    def named(item: Item) -> Item:
        place = Path(os.path.relpath(item.image, folder)).with_name(item.name)
        return replace(item, name="-".join(place.parts))

    return PairFiles(named(case.moving), named(case.fixed))
