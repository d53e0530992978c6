"""`lganet-fast data check` and what it finds."""

from __future__ import annotations

import json
import pickle
import re

import layouts
import nibabel as nib
import numpy as np
import pytest

from lganet_fast import InputError, config, data
from lganet_fast.cli import main


@pytest.fixture
def lpba40(tmp_path):
    """A whole data set with the overrides for it."""
    return tmp_path, layouts.write("lpba40", tmp_path)


@pytest.mark.parametrize("name", layouts.WRITERS)
def test_finds_nothing_in_a_whole_data_set(name, tmp_path, capsys):
    overrides = layouts.write(name, tmp_path, size=(8, 6, 7))
    assert data.check(config.load(name, overrides)) == []
    words = [word for override in overrides for word in ("--set", override)]
    assert main(["data", "check", name, *words]) == 0
    assert capsys.readouterr().out.startswith("pairs: ")


def test_says_what_is_wrong_file_by_file(lpba40, capsys):
    root, overrides = lpba40
    label = "label/S{}.delineation.structure.label.nii.gz"
    image = "train/S{}.delineation.skullstripped.nii.gz"
    (root / label.format("02")).unlink()
    (root / image.format(11)).write_bytes((root / image.format(11)).read_bytes()[:-900])
    (root / image.format(12)).write_bytes(b"no gzip")
    labels = nib.load(root / label.format(13))
    moved = nib.Nifti1Image(np.asarray(labels.dataobj), np.eye(4))
    nib.save(moved, root / label.format(13))
    nib.save(nib.Nifti1Image(np.ones((5, 30, 40), np.int16), np.eye(4)), root / image.format(14))
    problems = data.check(config.load("lpba40", overrides))
    wanted = [
        ("S11.delineation.skullstripped.nii.gz cannot be read",),
        ("S12.delineation.skullstripped.nii.gz cannot be read as an image",),
        ("S13.delineation.structure.label.nii.gz is on", "must be on its image's grid"),
        ("S14.delineation.skullstripped.nii.gz has 5 voxels along axis 1, data.crop goes up to",),
        ("S14.delineation.structure.label.nii.gz is on", "must be on its image's grid"),
        ("S02.delineation.structure.label.nii.gz does not exist",),
    ]
    assert len(problems) == len(wanted)
    for parts in wanted:
        assert [line for line in problems if all(part in line for part in parts)], parts
    words = [word for override in overrides for word in ("--set", override)]
    assert main(["data", "check", "lpba40", *words]) == 2
    shown = capsys.readouterr()
    assert shown.out.splitlines()[:-1] == problems
    assert shown.out.splitlines()[-1] == "pairs: 3 train, 1 val, 2 test; 14 files"
    assert shown.err == "lganet-fast: error: 6 problems in the data\n"


def test_opening_what_check_refuses_raises_the_same(lpba40):
    root, overrides = lpba40
    nib.save(nib.Nifti1Image(np.eye(5)[:, :, None] * np.ones(6), np.eye(4)), root / "fixed.nii.gz")
    settings = config.load("lpba40", [*overrides, "data.crop=[]"])
    assert any("must have one shape" in line for line in data.check(settings))
    (root / "label/S01.delineation.structure.label.nii.gz").unlink()
    assert any("S01.delineation.structure.label.nii.gz does" in x for x in data.check(settings))
    with pytest.raises(InputError, match=r"S01\.delineation"):
        data.open_split(settings, "test")[0]


def test_looks_into_pickles(tmp_path):
    overrides = layouts.write("oasis", tmp_path, size=(8, 6, 7))
    image = np.ones((16, 12, 14), np.float32)
    (tmp_path / "All/p_0001.pkl").write_bytes(pickle.dumps((image, image[:8])))
    (tmp_path / "All/p_0002.pkl").write_bytes(pickle.dumps((image,)))
    (tmp_path / "All/p_0003.pkl").write_bytes(pickle.dumps((image, print)))
    (tmp_path / "Test/p_0440_0441.pkl").write_bytes(pickle.dumps((image,) * 3))
    problems = data.check(config.load("oasis", [*overrides, "data.pairs=6"]))
    for pattern in (
        r"labels in .*p_0001\.pkl is on 8 x 12 x 14 voxels",
        r"p_0002\.pkl has 1 arrays, at least 2 needed",
        r"p_0003\.pkl references builtins\.print",
        r"p_0440_0441\.pkl has 3 arrays, at least 4 needed",
    ):
        assert [line for line in problems if re.search(pattern, line)], (pattern, problems)


def test_counts_points_and_compares_voxel_sizes(tmp_path):
    overrides = layouts.write("pairs", tmp_path, size=(8, 6, 7))
    (tmp_path / "0/moving.csv").write_text("x,y,z\n1,2,3\n")
    (tmp_path / "1/fixed.csv").write_text("x,y\n1,2\n")
    image, labels = layouts.subject(0, (8, 6, 7))
    layouts.save(tmp_path / "2/moving.nii.gz", image, spacing=1)
    layouts.save(tmp_path / "2/moving-labels.nii.gz", labels, spacing=1)
    problems = data.check(config.load("pairs", overrides))
    assert len(problems) == 3
    assert "must be paired by row, have 1 and 2" in problems[0]
    assert "no columns x, y and z" in problems[1]
    assert "must have the same voxel size, have 1 x 1 x 1 and 1.5 x 1.5 x 1.5 mm" in problems[2]


def test_a_missing_split_is_a_line_and_the_others_are_looked_at(tmp_path):
    overrides = layouts.write("lung_ct", tmp_path, size=(8, 6, 7))
    file = tmp_path / "LungCT_dataset.json"
    content = json.loads(file.read_text())
    content["registration_test"] = [{"fixed": "./imagesTs/LungCT_0005_0000.nii.gz"}]
    content["registration_val"][0]["moving"] = "./imagesTr/absent.nii.gz"
    file.write_text(json.dumps(content))
    problems = data.check(config.load("lung_ct", overrides))
    assert len(problems) == 2
    assert "imagesTr/absent.nii.gz does not exist" in problems[0]
    assert "registration_test must list moving and fixed" in problems[1]


def test_needs_a_configuration_and_a_task(tmp_path, capsys):
    assert main(["data", "check", "nowhere"]) == 2
    assert "must be a TOML file or one of" in capsys.readouterr().err
    assert main(["data", "check", "lung_ct", "--set", "data.task=", "--set", "data.root=."]) == 2
    assert "data.task must name the Learn2Reg task" in capsys.readouterr().out
    assert main(["data", "check", "lpba40", "--set", "data.roof=x"]) == 2
    assert "unknown key data.roof" in capsys.readouterr().err
