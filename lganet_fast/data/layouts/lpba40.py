"""LPBA40 as prepared for LGANet++: one atlas, training and test folders, labels aside."""

from __future__ import annotations

from pathlib import Path

from ...sections import DataSection
from ..case import Case, Item, held_out, listing, to_atlas

LABELS = "label/{}.delineation.structure.label.nii.gz"


def lpba40(data: DataSection, root: Path, split: str) -> list[Case]:
    """`fixed.nii.gz` (subject S01), `train/Sxx.*.nii.gz`, `test/Sxx.*.nii.gz`, `label/`.

    There is no validation folder: the last `validation` subjects of `train` are held out.
    """
    atlas = Item("S01", root / "fixed.nii.gz", root / LABELS.format("S01"))
    items = []
    for path in listing(root / ("test" if split == "test" else "train"), "*.nii.gz"):
        subject = path.name.split(".")[0]
        items.append(Item(subject, path, root / LABELS.format(subject)))
    if split != "test":
        first = len(items) - held_out(len(items), data.validation, "validation")
        items = items[first:] if split == "val" else items[:first]
    return to_atlas(atlas, data.atlas, items)
