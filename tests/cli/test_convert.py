"""`lganet-fast convert` between every pair of formats, and its errors."""

from __future__ import annotations

import os

import nibabel as nib
import numpy as np
import pytest
from synthetic import oblique_grid, wave

from lganet_fast.cli import main
from lganet_fast.transforms.field import DisplacementField
from lganet_fast.transforms.formats import recognise

FIXED = oblique_grid((14, 12, 10), (1.9, 1.5, 3.1), 20)
MOVING = oblique_grid((15, 11, 13), (1.4, 2.2, 1.7), -35)
FILES = {"itk": "a.nii.gz", "slicer": "b.nii", "h5": "c.h5", "learn2reg": "d.npz", "npz": "e.npz"}
GRIDS = ["--fixed", "fixed.nii", "--moving", "moving.nii"]


@pytest.fixture(scope="module")
def field():
    return DisplacementField(wave(FIXED.world(), 4.0).astype(np.float32), FIXED)


@pytest.fixture
def work(tmp_path, monkeypatch, field):
    monkeypatch.chdir(tmp_path)
    for name, grid in (("fixed", FIXED), ("moving", MOVING)):
        nib.save(nib.Nifti1Image(np.zeros(grid.shape, np.uint8), grid.affine), f"{name}.nii")
    for name, file in FILES.items():
        field.save(file, name, MOVING)
    return tmp_path


@pytest.mark.parametrize("target", FILES)
@pytest.mark.parametrize("source", FILES)
def test_every_pair(work, field, source, target):
    out = f"out-{FILES[target]}"
    assert main(["convert", FILES[source], out, "--to", target, *GRIDS]) == 0
    assert recognise(work / out) == target
    grids = (FIXED, MOVING) if target == "learn2reg" else ()
    back = DisplacementField.load(out, None, *grids)
    np.testing.assert_allclose(back.displacement, field.displacement, atol=3e-5)


def test_format_by_extension_and_by_name(work, field):
    assert main(["convert", "c.h5", "w.nii.gz"]) == 0
    assert recognise(work / "w.nii.gz") == "itk"
    assert main(["convert", "w.nii.gz", "w.h5"]) == 0
    assert recognise(work / "w.h5") == "h5"
    nib.save(nib.Nifti1Image(field.displacement, FIXED.affine), "bare.nii")
    assert main(["convert", "bare.nii", "w.nii", "--from", "slicer"]) == 0
    np.testing.assert_allclose(DisplacementField.load("w.nii").displacement, field.displacement)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a.nii.gz", "o.npz"], "several formats: name one of learn2reg, learn2reg2021, npz"),
        (["a.nii.gz", "o.txt"], "o.txt must end in"),
        (["a.nii.gz", "o.nii", "--to", "h5"], "o.nii must end in .h5"),
        (["a.nii.gz", "o.npz", "--to", "npz"], "is in voxels of both images"),
        (["d.npz", "o.nii"], "give the fixed and the moving image"),
        (["none.nii", "o.nii"], "transform none.nii does not exist"),
        (["fixed.nii", "o.nii"], "not a displacement field"),
        (["a.nii.gz", "o.nii", "--fixed", "moving.nii"], "but the fixed image on"),
        (["a.nii.gz", "o.nii", "--fixed", "none.nii"], "fixed none.nii does not exist"),
    ],
)
def test_errors(work, capsys, words, message):
    before = sorted(os.listdir(work))
    assert main(["convert", *words]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert sorted(os.listdir(work)) == before


def test_help_lists_the_formats(capsys):
    with pytest.raises(SystemExit):
        main(["convert", "--help"])
    text = capsys.readouterr().out
    assert all(name in text for name in (*FILES, "learn2reg2021", "LPS mm"))
