"""A real pair of LPBA40 brains, whole volumes, with fewer iterations than the default."""

from __future__ import annotations

import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from lganet_fast import DisplacementField
from lganet_fast.cli import main
from lganet_fast.metrics.scores import dice

ROOT = os.environ.get("LPBA40_ROOT")
pytestmark = pytest.mark.skipif(not ROOT, reason="LPBA40_ROOT does not name the data's folder")


@pytest.fixture(scope="module")
def files():
    root = Path(ROOT)
    labels = "label/{}.delineation.structure.label.nii.gz"
    return {
        "fixed": root / "fixed.nii.gz",
        "moving": root / "test/S02.delineation.skullstripped.nii.gz",
        "fixed_labels": root / labels.format("S01"),
        "moving_labels": root / labels.format("S02"),
    }


@pytest.fixture(scope="module")
def out(files, tmp_path_factory):
    """The folder that the command wrote."""
    out = tmp_path_factory.mktemp("lpba40") / "out"
    words = [w for name, path in files.items() for w in (f"--{name.replace('_', '-')}", str(path))]
    options = ["--iterations", "20x20x10x2", "--no-qc", "--quiet"]
    assert main(["register", *words, "--out", str(out), *options]) == 0
    return out


def test_labels_overlap_better_without_folds(files, out):
    report = json.loads((out / "report.json").read_text())
    assert report["labels"]["mean_dice_before"] == pytest.approx(0.563, abs=1e-3)
    assert report["labels"]["mean_dice_after"] > 0.68
    assert len(report["labels"]["per_label"]) == 56
    assert report["jacobian"]["folded_percent"] < 0.05
    fixed, warped = (
        np.asarray(nib.load(path).dataobj)
        for path in (files["fixed_labels"], out / "warped_labels.nii.gz")
    )
    scores = dice(fixed, warped)
    assert report["labels"]["mean_dice_after"] == pytest.approx(np.mean(list(scores.values())))


def test_forward_after_inverse_returns_points(files, out):
    forward, inverse = (
        DisplacementField.load(out / name) for name in ("warp.nii.gz", "inverse_warp.nii.gz")
    )
    brain = np.asarray(nib.load(files["moving"]).dataobj) > 0
    points = inverse.grid.world()[brain]
    miss = np.linalg.norm(forward.map(inverse.map(points)) - points, axis=-1)
    assert miss.mean() < 0.1
    assert np.percentile(miss, 99) < 0.5
