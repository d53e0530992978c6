"""People's own data: a table of pairs, or an atlas and a folder of images."""

from __future__ import annotations

import csv
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

from ...config.schema import SPLITS, DataSection
from ...errors import InputError
from ...runtime.reading import reading
from ...volumes.nifti import READABLE, stem
from ..case import Case, Item, divided, listing, to_atlas

REQUIRED = ("fixed", "moving")
COLUMNS = (
    *REQUIRED,
    "fixed_labels",
    "moving_labels",
    "fixed_points",
    "moving_points",
    "split",
)


def pairs(data: DataSection, root: Path, split: str) -> list[Case]:
    """A CSV file with the columns COLUMNS, of which `fixed` and `moving` are needed.

    root: the file, or a folder with `pairs.csv`. Paths are relative to the file. Points without a
    header are voxels, with x,y,z LPS mm. Without a column `split` the last rows are for testing,
    those before for validation, as `testing` and `validation` say.
    """
    table = root / "pairs.csv" if root.is_dir() else root
    rows = _rows(table)
    if "split" in rows[0]:
        for line, row in enumerate(rows, start=2):
            if row["split"] not in SPLITS:
                wanted = ", ".join(SPLITS)
                raise InputError(f"{table}, line {line}: split must be one of {wanted}")
        chosen = [row for row in rows if row["split"] == split]
    else:
        chosen = divided(rows, split, data.validation, data.testing)
    cases = [
        Case(*(_side(row, side, table.parent) for side in ("moving", "fixed"))) for row in chosen
    ]
    times = Counter(case.name for case in cases)
    return [case if times[case.name] == 1 else _longer(case, table.parent) for case in cases]


def atlas(data: DataSection, root: Path, split: str) -> list[Case]:
    """`atlas.nii.gz`, `images/`, and `labels/` with files of the same names where there are any.

    Images lie in `images/train`, `images/val` and `images/test`, or all in `images`: then the last
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
    return to_atlas(middle, data.atlas, items)


def _rows(table: Path) -> list[dict[str, str]]:
    with reading(str(table)), open(table, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, restkey="", restval="", skipinitialspace=True, strict=True)
        rows = list(reader)
        columns = list(reader.fieldnames or [])
    for name in columns:
        if columns.count(name) > 1:
            raise InputError(f"{table} has the column {name!r} more than once")
        if name not in COLUMNS:
            raise InputError(f"{table}: unknown column {name!r}; columns are {', '.join(COLUMNS)}")
    for name in REQUIRED:
        if name not in columns:
            raise InputError(f"{table} needs a column {name}")
    if not rows:
        raise InputError(f"{table} holds no pair")
    for line, row in enumerate(rows, start=2):
        if "" in row:
            raise InputError(f"{table}, line {line}: more cells than columns")
        for name in REQUIRED:
            if not row[name]:
                raise InputError(f"{table}, line {line}: {name} is empty")
    return rows


def _side(row: dict[str, str], side: str, folder: Path) -> Item:
    image, labels, points = (
        folder / row[name] if row.get(name) else None
        for name in (side, f"{side}_labels", f"{side}_points")
    )
    assert image is not None
    return Item(stem(image), image, labels, points)


def _longer(case: Case, folder: Path) -> Case:
    """The pair with names that tell files of the same name apart."""

    def named(item: Item) -> Item:
        place = Path(os.path.relpath(item.image, folder)).with_name(item.name)
        return replace(item, name="-".join(place.parts))

    return Case(named(case.moving), named(case.fixed))
