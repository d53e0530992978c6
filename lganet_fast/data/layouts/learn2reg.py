"""Tasks of the Learn2Reg challenge: lung CT (exhale, inhale) and abdominal CT to MR."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...config.schema import DataSection
from ...errors import InputError
from ...runtime.reading import reading
from ...volumes.nifti import stem
from ..pair_files import Item, PairFiles, listing, random_pairs

PAIRS = {
    "train": ("training_paired_images",),
    "val": ("registration_val",),
    "test": ("registration_test", "test_paired_images"),
}
MR, CT = "_0000", "_0001"  # endings of the abdominal task's images


def learn2reg(data: DataSection, root: Path, split: str) -> list[PairFiles]:
    """A folder with `*_dataset.json`, `imagesTr/Task_XXXX_000m.nii.gz`, `labelsTr/` and so on.

    The JSON names the fixed image of a pair: exhale (0000) in LungCT, MR (0000) in AbdomenCTMR.
    Validation pairs are not used for training. AbdomenCTMR trains on random pairs of an MR and a CT
    of any two patients, in the same roles as in the validation pairs.
    """
    if not data.task:
        raise InputError("data.task must name the Learn2Reg task, 'LungCT' or 'AbdomenCTMR'")
    task = Task(root)
    if split != "train":
        return task.pairs(split)
    validation = task.pairs("val")
    if data.task == "LungCT":
        names = {case.name for case in validation}
        return [case for case in task.pairs("train") if case.name not in names]
    held = {side.name for case in validation for side in (case.moving, case.fixed)}
    free = [item for item in task.images() if item.name not in held]
    swapped = bool(validation) and validation[0].fixed.name.endswith(CT)
    moving, fixed = (
        [item for item in free if item.name.endswith(end)]
        for end in ((MR, CT) if swapped else (CT, MR))
    )
    if not (moving and fixed):
        raise InputError(f"{task.file}: training must list images *{MR} (MR) and *{CT} (CT)")
    return random_pairs(moving, fixed, data.pairs, data.seed)


class Task:
    """A task's dataset JSON. Raises InputError if it is not in Learn2Reg's format."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.file, *others = listing(root, "_dataset.json")
        if others:
            raise InputError(f"{root} must have one *_dataset.json, has {1 + len(others)}")
        with reading(str(self.file)):
            self.content = json.loads(self.file.read_text("utf-8"))
        if not isinstance(self.content, dict):
            raise InputError(f"{self.file} must contain an object")
        known = self.entries("training", ("image",))
        self.known: dict[str, dict[str, Any]] = {entry["image"]: entry for entry in known}

    def entries(self, key: str, needed: tuple[str, ...]) -> list[dict[str, Any]]:
        """The list under a key, empty if missing; each entry has the needed keys."""
        found = self.content.get(key, [])
        if not isinstance(found, list):
            raise InputError(f"{self.file}: {key} must be a list")
        for entry in found:
            if not isinstance(entry, dict) or not all(
                isinstance(entry.get(name), str) for name in needed
            ):
                raise InputError(f"{self.file}: {key} must list {' and '.join(needed)}: {entry}")
        return found

    def pairs(self, split: str) -> list[PairFiles]:
        """The pairs of a split."""
        key = next((key for key in PAIRS[split] if key in self.content), PAIRS[split][0])
        return [
            PairFiles(self.item(entry["moving"]), self.item(entry["fixed"]))
            for entry in self.entries(key, ("moving", "fixed"))
        ]

    def images(self) -> list[Item]:
        """All images for training."""
        return [self.item(name) for name in self.known]

    def item(self, name: str) -> Item:
        """An image with its files from the JSON, or else from the sister folders."""
        image = self.root / name
        part = image.parent.name.removeprefix("images")
        entry = self.known.get(name, {})

        def companion(key: str, file: str, *folders: str) -> Path | None:
            if isinstance(entry.get(key), str):
                return self.root / entry[key]
            places = (self.root / f"{folder}{part}" / file for folder in folders)
            return next((path for path in places if path.is_file()), None)

        return Item(
            stem(image),
            image,
            companion("label", image.name, "labels"),
            companion("keypoints", f"{stem(image)}.csv", "landmarks", "keypoints"),
            companion("mask", image.name, "masks"),
        )
