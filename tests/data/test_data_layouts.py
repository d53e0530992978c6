"""Every data set in its true layout: pairs, splits, roles, shapes."""

from __future__ import annotations

import dataclasses
import json
import os

import layouts
import numpy as np
import pytest

from lganet_fast import InputError, config, data
from lganet_fast.config.schema import SPLITS
from lganet_fast.metrics.scores import dice

COUNTS = {
    "lpba40": (3, 1, 2),
    "ixi": (3, 1, 1),
    "oasis": (3, 1, 2),
    "oasis_neurite": (2, 1, 1),
    "lung_ct": (3, 1, 1),
    "abdomen_ct_mr": (3, 1, 1),
    "pairs": (3, 1, 2),
    "atlas": (4, 1, 2),
}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Each data set, written once when first asked for."""
    done = {}

    def get(name):
        if name not in done:
            folder = tmp_path_factory.mktemp(name)
            done[name] = config.load(name, layouts.write(name, folder))
        return done[name]

    return get


@pytest.mark.parametrize("name", COUNTS)
def test_splits_and_shapes(written, name):
    settings = written(name)
    splits = [data.open_split(settings, split) for split in SPLITS]
    assert tuple(map(len, splits)) == COUNTS[name]
    for split in splits:
        sample = split[len(split) - 1]
        for volume in (sample.moving, sample.fixed):
            assert volume.shape == layouts.SIZE
            assert volume.dtype == np.float32
            assert volume.flags.c_contiguous
            assert 0 <= volume.min() < volume.max() <= 1
        assert not np.array_equal(sample.moving, sample.fixed)
        assert [x.shape for x in sample.tensors()] == [(1, 1, *layouts.SIZE)] * 2


def changed(settings, **values):
    return dataclasses.replace(settings, data=dataclasses.replace(settings.data, **values))


def names(settings, split):
    return [case.name for case in data.open_split(settings, split).cases]


def test_lpba40_is_patient_to_atlas_and_holds_the_last_subjects_out(written):
    settings = written("lpba40")
    assert names(settings, "train") == ["S11_to_S01", "S12_to_S01", "S13_to_S01"]
    assert names(settings, "val") == ["S14_to_S01"]
    assert names(settings, "test") == ["S02_to_S01", "S03_to_S01"]
    all_of_them = changed(settings, validation=0)
    assert len(names(all_of_them, "train")) == 4
    assert names(all_of_them, "val") == []
    assert names(changed(settings, atlas="moving"), "test") == ["S01_to_S02", "S01_to_S03"]


def test_lpba40_reads_the_files_of_its_subjects(written):
    settings = written("lpba40")
    sample = data.open_split(settings, "test")[1]
    grown = layouts.grown(layouts.SIZE)
    inside = tuple(slice(layouts.MARGIN, -layouts.MARGIN) for _ in range(3))
    for seed, image, labels in (
        (3, sample.moving, sample.moving_labels),
        (1, sample.fixed, sample.fixed_labels),
    ):
        expected, codes = layouts.subject(seed, grown)
        np.testing.assert_array_equal(image, expected[inside])
        np.testing.assert_array_equal(labels, np.array([0, 21, 22, 61, 182])[codes][inside])


def test_ixi_is_atlas_to_patient_with_the_atlas_moving(written):
    settings = written("ixi")
    assert names(settings, "train") == [f"atlas_to_subject_{i}" for i in (1, 2, 3)]
    assert names(settings, "val") == ["atlas_to_subject_4"]
    sample = data.open_split(settings, "test")[0]
    image, _ = layouts.subject(5, tuple(2 * n for n in layouts.SIZE))
    means = image.reshape(20, 2, 24, 2, 28, 2).mean((1, 3, 5))
    np.testing.assert_allclose(sample.fixed, means, atol=1e-6)
    assert sample.fixed_labels.max() == 4


def test_oasis_pairs_are_random_to_train_and_given_to_test(written):
    settings = written("oasis")
    assert names(settings, "test") == ["0438_to_0439", "0439_to_0440"]
    assert names(settings, "val") == ["p_0004_to_p_0005"]
    train = names(settings, "train")
    assert names(settings, "train") == train
    assert {side for name in train for side in name.split("_to_")} <= {
        *("p_0001", "p_0002", "p_0003")
    }
    assert {tuple(names(changed(settings, seed=seed), "train")) for seed in range(8)} != {
        tuple(train)
    }
    every = names(changed(settings, pairs=6), "train")
    assert len(set(every)) == 6
    assert all(len(set(name.split("_to_"))) == 2 for name in every)
    with pytest.raises(InputError, match=r"data.pairs asks for 7 pairs, but there are only 6"):
        names(changed(settings, pairs=7), "train")
    sample = data.open_split(settings, "test")[0]
    moving, fixed = (layouts.subject(i, tuple(2 * n for n in layouts.SIZE)) for i in (438, 439))
    np.testing.assert_array_equal(sample.moving_labels, moving[1][::2, ::2, ::2])
    np.testing.assert_array_equal(sample.fixed_labels, fixed[1][::2, ::2, ::2])


def test_oasis_of_neurite_keeps_the_order_of_subjects_txt(written):
    settings = written("oasis_neurite")
    root = settings.data.folder()
    subjects = root / "subjects.txt"
    before = subjects.read_text()
    assert names(settings, "test") == ["OASIS_OAS1_0005_MR1_to_OASIS_OAS1_0006_MR1"]
    try:
        subjects.write_text("\n".join(reversed(before.split())))
        assert names(settings, "test") == ["OASIS_OAS1_0002_MR1_to_OASIS_OAS1_0001_MR1"]
    finally:
        subjects.write_text(before)


def test_lung_ct_is_inhale_to_exhale_with_keypoints_and_masks(written):
    settings = written("lung_ct")
    assert names(settings, "train") == [
        f"LungCT_000{i}_0001_to_LungCT_000{i}_0000" for i in (1, 2, 3)
    ]
    assert names(settings, "val") == ["LungCT_0004_0001_to_LungCT_0004_0000"]
    sample = data.open_split(settings, "test")[0]
    assert sample.name == "LungCT_0005_0001_to_LungCT_0005_0000"
    assert sample.moving_points.shape == sample.fixed_points.shape == (12, 3)
    written_points = np.loadtxt(
        settings.data.folder() / "keypointsTs/LungCT_0005_0000.csv", delimiter=","
    )
    expected = (written_points - [0, 0, layouts.MARGIN + 0.5]) / [1, 1, 2]
    np.testing.assert_allclose(sample.fixed_points, expected, atol=1e-9)
    assert sample.moving_mask.dtype == sample.fixed_mask.dtype == bool
    assert sample.moving_mask.shape == layouts.SIZE
    assert sample.fixed_labels is None
    np.testing.assert_allclose(np.diag(sample.affine), [-1, -1, 2, 1])


def test_abdomen_pairs_are_mr_fixed_ct_moving_and_unpaired_to_train(written):
    settings = written("abdomen_ct_mr")
    assert names(settings, "val") == ["AbdomenMRCT_0001_0001_to_AbdomenMRCT_0001_0000"]
    assert names(settings, "test") == ["AbdomenMRCT_0002_0001_to_AbdomenMRCT_0002_0000"]
    train = names(changed(settings, pairs=6), "train")
    moving, fixed = zip(*(name.split("_to_") for name in train), strict=True)
    assert set(moving) == {f"AbdomenMRCT_000{i}_0001" for i in (6, 7)}
    assert set(fixed) == {f"AbdomenMRCT_000{i}_0000" for i in (3, 4, 5)}
    sample = data.open_split(settings, "test")[0]
    assert sample.fixed_labels.max() == sample.moving_labels.max() == 4


def test_abdomen_takes_its_roles_from_the_json(written, tmp_path):
    settings = config.load("abdomen_ct_mr", layouts.write("abdomen_ct_mr", tmp_path))
    file = tmp_path / "AbdomenMRCT_dataset.json"
    content = json.loads(file.read_text())
    pair = content["registration_val"][0]
    content["registration_val"] = [{"fixed": pair["moving"], "moving": pair["fixed"]}]
    file.write_text(json.dumps(content))
    assert all(name.endswith("_0001") for name in names(settings, "train"))


def test_pairs_reads_points_in_lps_mm(written):
    settings = written("pairs")
    sample = data.open_split(settings, "test")[0]
    np.testing.assert_allclose(sample.fixed_points, [[10, 10, 10], [12, 8, 16]])
    assert sample.name == "4-moving_to_4-fixed"
    assert sample.fixed_labels.max() == 4
    np.testing.assert_allclose(np.diag(sample.affine), [-1.5, -1.5, 1.5, 1])


def test_pairs_without_a_split_are_divided_in_order(written, tmp_path):
    settings = written("pairs")
    table = tmp_path / "some.csv"
    folder = settings.data.folder()
    lines = [f"{folder}/{i}/fixed.nii.gz,{folder}/{i}/moving.nii.gz" for i in range(6)]
    table.write_text("\n".join(["fixed,moving", *lines]))
    settings = changed(settings, root=str(table), validation=0.2, testing=2)
    cases = {split: data.open_split(settings, split).cases for split in SPLITS}
    folders = {
        split: [case.fixed.image.parent.name for case in found] for split, found in cases.items()
    }
    assert folders == {"train": ["0", "1", "2"], "val": ["3"], "test": ["4", "5"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "fixed,moving,moved\na,b,c",
            "unknown column moved; columns are fixed, moving, fixed_labels",
        ),
        ("fixed\na", "must have the columns fixed, moving in its first line; moving missing"),
        ("fixed,moving", "has no row below its header"),
        ("fixed,moving\na,", "row 2: moving is empty"),
        ("fixed,moving\na,b\na,b,c", "row 3: 3 cells under 2 columns"),
        ("fixed,moving,split\na,b,training", "row 2: split must be one of train, val, test"),
    ],
)
def test_pairs_refuses_by_line(tmp_path, text, message):
    (tmp_path / "pairs.csv").write_text(text)
    settings = config.load("pairs", [f"data.root={tmp_path}"])
    with pytest.raises(InputError, match=f"pairs.csv.*{message}"):
        data.open_split(settings, "train")


def test_atlas_folder_by_fractions_and_by_sub_folders(written, tmp_path):
    settings = written("atlas")
    assert names(settings, "test") == ["p6_to_atlas", "p7_to_atlas"]
    samples = [data.open_split(settings, "train")[i] for i in (0, 1)]
    assert [sample.moving_labels is None for sample in samples] == [False, True]
    root = settings.data.folder()
    (tmp_path / "atlas.nii.gz").symlink_to(root / "atlas.nii.gz")
    for split, number in (("train", 3), ("test", 4)):
        folder = tmp_path / "images" / split
        folder.mkdir(parents=True)
        (folder / "a.nii.gz").symlink_to(root / f"images/p{number}.nii.gz")
    settings = changed(settings, root=str(tmp_path))
    assert [len(data.open_split(settings, split)) for split in SPLITS] == [1, 0, 1]


@pytest.mark.parametrize("name", COUNTS)
def test_an_empty_folder_is_one_clear_line(name, tmp_path):
    settings = config.load(name, [f"data.root={tmp_path}"])
    with pytest.raises(InputError, match=str(tmp_path)) as caught:
        data.open_split(settings, "train")
    assert "\n" not in str(caught.value)


def test_too_many_held_out_are_refused(written):
    with pytest.raises(InputError, match=r"data.validation and data.testing hold out 4 and 0 of 4"):
        names(changed(written("lpba40"), validation=4), "train")


@pytest.mark.skipif("LPBA40_ROOT" not in os.environ, reason="LPBA40_ROOT does not name the data")
def test_the_real_lpba40():
    settings = config.load("lpba40", ["data.validation=0"])
    train, val, test = (data.open_split(settings, split) for split in SPLITS)
    assert (len(train), len(val), len(test)) == (30, 0, 4)
    assert data.check(settings) == []
    sample = test[0]
    assert sample.name == "S02_to_S01"
    assert sample.moving.shape == sample.fixed.shape == (144, 176, 144)
    assert set(np.unique(sample.fixed_labels)) == {0, *settings.data.labels}
    assert len(settings.data.labels) == 56
    half = data.open_split(changed(settings, spacing=2), "test")[0]
    assert half.moving.shape == (72, 88, 72)
    scores = dice(half.fixed_labels, half.moving_labels, settings.data.labels)
    assert np.mean(list(scores.values())) == pytest.approx(0.562, abs=2e-3)
