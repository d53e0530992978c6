"""Every data set in its original layout, with small synthetic subjects."""

from __future__ import annotations

import csv
import json
import pickle
from collections.abc import Callable
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np
from synthetic import wave

from lganet_fast.volumes.grid import Array

SIZE = (20, 24, 28)  # of every volume, as input of the network
MARGIN = 2  # voxels around it in data sets that are cropped


def write(name: str, folder: Path, size: tuple[int, int, int] = SIZE) -> list[str]:
    """Write the data set of the shipped configuration `name` into a folder.

    Returns overrides for `config.load(name, overrides)` to read it as volumes of `size`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    layout = max((known for known in WRITERS if name.startswith(known)), key=len)
    settings = WRITERS[layout](folder, size)
    return [f"data.root={json.dumps(str(folder))}", *settings]


@cache
def subject(seed: int, size: tuple[int, int, int], amplitude: float = 3.0) -> tuple[Array, Array]:
    """Image in [0, 1] and labels 0 to 4 of one anatomy, shifted according to the seed."""
    axes = [np.linspace(-30, 30, n) for n in size]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    points += wave(points + np.random.default_rng(seed).uniform(-20, 20, 3), amplitude)
    x, y, z = np.moveaxis(points, -1, 0)
    value = np.sin(x / 4) * np.cos(y / 5 + 1) + np.sin(z / 3 + x / 9)
    radius = np.sqrt(((points / [26.0, 30.0, 24.0]) ** 2).sum(-1))
    labels = np.where(radius < 1, 1 + (value > 0) + 2 * (radius < 0.6), 0)
    image = np.where(radius < 1, 0.55 + 0.2 * value, 0)
    return image.astype(np.float32), labels.astype(np.uint8)


def save(path: Path, data: Array, spacing: float = 1.0) -> None:
    """Write a NIfTI file and its parent folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, np.diag([-spacing, -spacing, spacing, 1])), path)


def dump(path: Path, *arrays: Array) -> None:
    """Write a pickle of a tuple."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(arrays, protocol=4))


def grown(size: tuple[int, int, int], by: int = 2 * MARGIN) -> tuple[int, int, int]:
    """The size with a margin."""
    return size[0] + by, size[1] + by, size[2] + by


def inner(size: tuple[int, int, int]) -> str:
    """The override that crops the margin."""
    return f"data.crop={[[MARGIN, MARGIN + n] for n in size]}"


def lpba40(root: Path, size: tuple[int, int, int]) -> list[str]:
    """Atlas S01, S11 to S14 to train, S02 and S03 to test; labels with LPBA40's numbers."""
    names = np.array([0, 21, 22, 61, 182], np.uint8)
    for number in (1, 2, 3, 11, 12, 13, 14):
        image, labels = subject(number, grown(size))
        kind = "train" if number > 10 else "test"
        path = root / kind / f"S{number:02}.delineation.skullstripped.nii.gz"
        save(root / "fixed.nii.gz" if number == 1 else path, image)
        save(root / f"label/S{number:02}.delineation.structure.label.nii.gz", names[labels])
    return [inner(size), "data.labels=[21, 22, 61, 182]", "data.validation=1"]


def ixi(root: Path, size: tuple[int, int, int]) -> list[str]:
    """TransMorph's folders, at twice the size."""
    full = (2 * size[0], 2 * size[1], 2 * size[2])
    dump(root / "atlas.pkl", *subject(0, full))
    for number, kind in enumerate(("Train", "Train", "Train", "Val", "Test"), start=1):
        dump(root / kind / f"subject_{number}.pkl", *subject(number, full))
    return []


def oasis(root: Path, size: tuple[int, int, int]) -> list[str]:
    """TransMorph's folders, at twice the size."""
    full = (2 * size[0], 2 * size[1], 2 * size[2])
    for number in range(1, 6):
        dump(root / "All" / f"p_{number:04}.pkl", *subject(number, full))
    for first in (438, 439):
        (x, x_labels), (y, y_labels) = subject(first, full), subject(first + 1, full)
        dump(root / "Test" / f"p_{first:04}_{first + 1:04}.pkl", x, y, x_labels, y_labels)
    return ["data.validation=2"]


def oasis_neurite(root: Path, size: tuple[int, int, int]) -> list[str]:
    """Neurite's folders, at twice the size."""
    full = (2 * size[0], 2 * size[1], 2 * size[2])
    names = [f"OASIS_OAS1_{number:04}_MR1" for number in range(1, 7)]
    for number, name in enumerate(names, start=1):
        image, labels = subject(number, full)
        save(root / name / "aligned_norm.nii.gz", image)
        save(root / name / "aligned_seg35.nii.gz", labels)
    (root / "subjects.txt").write_text("\n".join(names) + "\n")
    return ["data.validation=2", "data.testing=2"]


def lung_ct(root: Path, size: tuple[int, int, int]) -> list[str]:
    """Pairs of exhale and inhale, keypoints, masks; 0004 to validate, 0005 to test."""
    full = (size[0], size[1], 2 * size[2] + 2 * MARGIN)
    pairs: dict[str, list[dict[str, str]]] = {"Tr": [], "Ts": []}
    training = []
    for number in range(1, 6):
        part = "Tr" if number < 5 else "Ts"
        names = [f"LungCT_{number:04}_{when:04}" for when in (0, 1)]
        inside = np.random.default_rng(number).uniform(1, np.array(full) - 3, (12, 3))
        for when, name in enumerate(names):
            image, labels = subject(2 * number + when, full)
            save(root / f"images{part}/{name}.nii.gz", (1500 * image - 1000).astype(np.int16))
            save(root / f"masks{part}/{name}.nii.gz", (labels > 0).astype(np.uint8))
            points = root / f"keypoints{part}/{name}.csv"
            points.parent.mkdir(exist_ok=True)
            np.savetxt(points, inside + when, fmt="%.3f", delimiter=",")
        files = [f"./images{part}/{name}.nii.gz" for name in names]
        pairs[part].append(dict(zip(("fixed", "moving"), files, strict=True)))
        training += [{"image": file} for file in files] if part == "Tr" else []
    content = {
        "name": "LungCT",
        "tensorImageShape": {"0": list(full)},
        "training": training,
        "training_paired_images": pairs["Tr"],
        "registration_val": pairs["Tr"][-1:],
        "registration_test": pairs["Ts"],
    }
    (root / "LungCT_dataset.json").write_text(json.dumps(content))
    return [f"data.crop={[[0, size[0]], [0, size[1]], [MARGIN, MARGIN + 2 * size[2]]]}"]


def abdomen_ct_mr(root: Path, size: tuple[int, int, int]) -> list[str]:
    """Patient 0001 with MR and CT to validate, 0002 to test; three MR and two CT unpaired."""
    training = []

    def scan(number: int, kind: int, part: str = "Tr") -> str:
        image, labels = subject(number, grown(size))
        name = f"AbdomenMRCT_{number:04}_{kind:04}.nii.gz"
        values = 900 * image - 450 if kind else 2000 * image
        save(root / f"images{part}/{name}", values.astype(np.int16))
        save(root / f"labels{part}/{name}", labels)
        save(root / f"masks{part}/{name}", (labels > 0).astype(np.uint8))
        file = f"./images{part}/{name}"
        if part == "Tr":
            training.append({"image": file, "label": f"./labelsTr/{name}"})
        return file

    pairs = [{"fixed": scan(1, 0), "moving": scan(1, 1)}]
    for number in (3, 4, 5):
        scan(number, 0)
    for number in (6, 7):
        scan(number, 1)
    content = {
        "name": "AbdomenMRCT",
        "training": training,
        "training_paired_images": [],
        "registration_val": pairs,
        "registration_test": [{"fixed": scan(2, 0, "Ts"), "moving": scan(2, 1, "Ts")}],
    }
    (root / "AbdomenMRCT_dataset.json").write_text(json.dumps(content))
    return [inner(size)]


def pairs(root: Path, size: tuple[int, int, int]) -> list[str]:
    """Three pairs to train, one to validate, two to test; labels and points."""
    rows = []
    for number, split in enumerate(("train", "train", "train", "val", "test", "test")):
        row = {"split": split}
        for side in ("fixed", "moving"):
            image, labels = subject(2 * number + (side == "moving"), size)
            row[side] = f"{number}/{side}.nii.gz"
            row[f"{side}_labels"] = f"{number}/{side}-labels.nii.gz"
            row[f"{side}_points"] = f"{number}/{side}.csv"
            save(root / row[side], image, spacing=1.5)
            save(root / row[f"{side}_labels"], labels, spacing=1.5)
            (root / row[f"{side}_points"]).write_text("x,y,z\n15.0,15.0,15.0\n18.0,12.0,24.0\n")
        rows.append(row)
    with open(root / "pairs.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return []


def atlas(root: Path, size: tuple[int, int, int]) -> list[str]:
    """Seven images, of which one validates and two test; one training image has no labels."""
    for number in range(8):
        image, labels = subject(number, size)
        name = f"p{number}.nii.gz" if number else "atlas.nii.gz"
        save(root / ("images" if number else ".") / name, 40 * image + 3)
        if number != 2:
            save(root / "labels" / name, labels)
    return ["data.validation=1", "data.testing=2"]


WRITERS: dict[str, Callable[[Path, tuple[int, int, int]], list[str]]] = {
    "lpba40": lpba40,
    "ixi": ixi,
    "oasis": oasis,
    "oasis_neurite": oasis_neurite,
    "lung_ct": lung_ct,
    "abdomen_ct_mr": abdomen_ct_mr,
    "pairs": pairs,
    "atlas": atlas,
}
