"""LPBA40, IXI and OASIS."""

from __future__ import annotations

import re
from pathlib import Path

from ...config.schema import DataSection
from ...errors import InputError
from ..pair_files import Item, PairFiles, chain, divided, listing, random_pairs, with_atlas

LPBA40_LABELS = "label/{}.delineation.structure.label.nii.gz"
FOLDERS = {"train": "Train", "val": "Val", "test": "Test"}  # of IXI
PAIR = re.compile(r"p_([^_]+)_([^_]+)\.pkl")


def lpba40(data: DataSection, root: Path, split: str) -> list[PairFiles]:
    """`fixed.nii.gz` (subject S01), `train/Sxx.*.nii.gz`, `test/Sxx.*.nii.gz`, `label/`.

    Atlas to patient. There is no validation folder: the last `validation` subjects of `train` are
    held out.
    """
    atlas = Item("S01", root / "fixed.nii.gz", root / LPBA40_LABELS.format("S01"))
    items = []
    for path in listing(root / ("test" if split == "test" else "train"), ".nii.gz"):
        subject = path.name.split(".")[0]
        items.append(Item(subject, path, root / LPBA40_LABELS.format(subject)))
    if split != "test":
        items = divided(items, split, data.validation)
    return with_atlas(data, split, atlas, items)


def ixi(data: DataSection, root: Path, split: str) -> list[PairFiles]:
    """TransMorph's IXI: `atlas.pkl` and `Train|Val|Test/*.pkl`, each (image, labels).

    Atlas to patient; in TransMorph the atlas is the moving image.
    """
    atlas = Item("atlas", root / "atlas.pkl", slots=(0, 1))
    found = listing(root / FOLDERS[split], ".pkl")
    return with_atlas(data, split, atlas, [Item(x.stem, x, slots=(0, 1)) for x in found])


def oasis(data: DataSection, root: Path, split: str) -> list[PairFiles]:
    """TransMorph's OASIS: `All/p_0001.pkl`, (image, labels), and `Test/p_0438_0439.pkl`.

    A test file is a pair, (moving, fixed, moving labels, fixed labels). Training pairs are random;
    the last `validation` subjects of `All` are held out and paired each to the next.
    """
    if split == "test":
        return [_pair(path) for path in listing(root / "Test", ".pkl")]
    items = [Item(x.stem, x, slots=(0, 1)) for x in listing(root / "All", ".pkl")]
    return _between(data, split, divided(items, split, data.validation))


def oasis_neurite(data: DataSection, root: Path, split: str) -> list[PairFiles]:
    """Neurite's OASIS: `OASIS_OAS1_*/aligned_norm.nii.gz` with `aligned_seg35.nii.gz`.

    Subjects are in the order of `subjects.txt` if it exists. The last `testing` subjects are for
    testing, those before for validation, each paired to the next; training pairs are random.
    """
    names = sorted(path.name for path in root.glob("OASIS_OAS1_*") if path.is_dir())
    if not names:
        raise InputError(f"{root} has no folder OASIS_OAS1_*")
    subjects = root / "subjects.txt"
    if subjects.is_file():
        names = subjects.read_text("utf-8").split()
    items = [
        Item(name, root / name / "aligned_norm.nii.gz", root / name / "aligned_seg35.nii.gz")
        for name in names
    ]
    return _between(data, split, divided(items, split, data.validation, data.testing))


def _between(data: DataSection, split: str, items: list[Item]) -> list[PairFiles]:
    if split == "train":
        return random_pairs(items, items, data.pairs, data.seed)
    return chain(items)


def _pair(path: Path) -> PairFiles:
    names = PAIR.fullmatch(path.name)
    if names is None:
        raise InputError(f"{path} must be called p_MOVING_FIXED.pkl")
    return PairFiles(Item(names[1], path, slots=(0, 2)), Item(names[2], path, slots=(1, 3)))
