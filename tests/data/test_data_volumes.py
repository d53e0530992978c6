"""Crop, intensity and pooling of one image with what belongs to it."""

from __future__ import annotations

import threading
import time

import nibabel as nib
import numpy as np
import pytest

from lganet_fast import InputError
from lganet_fast.config.schema import DataSection
from lganet_fast.data.dataset import Shelf
from lganet_fast.data.pair_files import Item
from lganet_fast.data.volumes import prepare

AFFINE = np.array([[0, -2.0, 0, 5], [1.5, 0, 0, -3], [0, 0, 3.0, 7], [0, 0, 0, 1]])
SHAPE = (12, 10, 9)


def settings(**values):
    return DataSection(layout="atlas", **values)


@pytest.fixture
def item(tmp_path):
    """An image whose value at a voxel tells its place, with labels, points and a mask."""
    random = np.random.default_rng(0)
    i, j, k = np.indices(SHAPE)
    arrays = {
        "image": (100 * i + 10 * j + k).astype(np.float32),
        "labels": random.integers(0, 5, SHAPE).astype(np.uint8),
        "mask": random.integers(0, 2, SHAPE).astype(np.uint8),
    }
    for name, array in arrays.items():
        nib.save(nib.Nifti1Image(array, AFFINE), tmp_path / f"{name}.nii.gz")
    (tmp_path / "points.csv").write_text("4,5,6\n3.5,2,8\n")
    files = {name: tmp_path / f"{name}.nii.gz" for name in arrays}
    return Item("x", files["image"], files["labels"], tmp_path / "points.csv", files["mask"])


def stored(item, name):
    return np.asarray(nib.load(getattr(item, name)).dataobj)


def test_as_is_is_the_file(item):
    found = prepare(item, settings(), "as-is")
    np.testing.assert_array_equal(found.image, stored(item, "image"))
    np.testing.assert_array_equal(found.labels, stored(item, "labels"))
    np.testing.assert_array_equal(found.mask, stored(item, "mask") == 1)
    np.testing.assert_array_equal(found.affine, AFFINE)
    np.testing.assert_allclose(found.points, [[4, 5, 6], [3.5, 2, 8]])
    assert (found.image.dtype, found.labels.dtype) == (np.float32, np.int32)


@pytest.mark.parametrize("spacing", [1, 2, 3, (1, 2, 3), (5, 1, 2)])
@pytest.mark.parametrize("crop", [(), ((1, 11), (0, 8), (2, 9))])
def test_every_voxel_keeps_its_place_in_the_world(item, spacing, crop):
    """An image whose value is linear in the place: pooled, it must be so at the new places too."""
    data = settings(spacing=spacing, crop=crop)
    found = prepare(item, data, "as-is")
    ends = crop or tuple((0, n) for n in SHAPE)
    assert found.image.shape == tuple(
        (b - a) // s for (a, b), s in zip(ends, data.factors, strict=True)
    )
    assert found.labels.shape == found.mask.shape == found.image.shape
    places = np.moveaxis(np.indices(found.image.shape), 0, -1)
    world = places @ found.affine[:3, :3].T + found.affine[:3, 3]
    voxels = (world - AFFINE[:3, 3]) @ np.linalg.inv(AFFINE[:3, :3]).T
    np.testing.assert_allclose(found.image, voxels @ [100, 10, 1], rtol=1e-5)
    back = found.points @ found.affine[:3, :3].T + found.affine[:3, 3]
    np.testing.assert_allclose(
        back, np.array([[4, 5, 6], [3.5, 2, 8]]) @ AFFINE[:3, :3].T + AFFINE[:3, 3]
    )
    nearest = tuple(np.ceil(np.moveaxis(voxels, -1, 0) - 0.5 - 1e-6).astype(int))
    np.testing.assert_array_equal(found.labels, stored(item, "labels")[nearest])
    np.testing.assert_array_equal(found.mask, stored(item, "mask")[nearest] == 1)


def test_intensity_rules_look_at_the_crop_alone(item):
    crop = ((0, 4), (0, 10), (0, 9))
    image = stored(item, "image")[:4]
    found = prepare(item, settings(crop=crop), "range")
    np.testing.assert_allclose(found.image, image / image.max(), atol=1e-6)
    found = prepare(item, settings(crop=crop), ("clip", 50, 150))
    np.testing.assert_allclose(found.image, np.clip((image - 50) / 100, 0, 1), atol=1e-6)
    found = prepare(item, settings(crop=crop), ("percentile", 10, 90))
    low, high = np.percentile(image, (10, 90))
    np.testing.assert_allclose(found.image, np.clip((image - low) / (high - low), 0, 1), atol=1e-5)
    assert found.image.dtype == np.float32


def test_pooling_comes_after_the_intensity_rule(item):
    found = prepare(item, settings(spacing=2), ("clip", 0, 100))
    image = np.clip(stored(item, "image") / 100, 0, 1)[:12, :10, :8]
    means = image.reshape(6, 2, 5, 2, 4, 2).mean((1, 3, 5))
    np.testing.assert_allclose(found.image, means, atol=1e-6)


def test_marks_are_left_out_when_not_asked_for(item):
    found = prepare(item, settings(), "as-is", marks=False)
    assert found.labels is found.points is found.mask is None


def test_refuses_what_does_not_fit(item, tmp_path):
    with pytest.raises(
        InputError, match=r"image.nii.gz has 9 voxels along axis 3, data.crop goes up to 10"
    ):
        prepare(item, settings(crop=((0, 12), (0, 10), (0, 10))), "as-is")
    with pytest.raises(InputError, match=r"image.nii.gz keeps 2 x 1 x 1 voxels: at least 2 needed"):
        prepare(item, settings(spacing=6), "as-is")
    with pytest.raises(
        InputError, match=r"image.nii.gz is constant after data.crop and data.intens"
    ):
        prepare(item, settings(), ("clip", -5, -2))
    nib.save(nib.Nifti1Image(np.zeros(SHAPE, np.uint8), np.eye(4)), item.labels)
    with pytest.raises(
        InputError, match=r"labels .*labels.nii.gz is on .* but must be on its image's grid"
    ):
        prepare(item, settings(), "as-is")


def test_the_shelf_makes_a_value_once_for_all_threads():
    shelf, made = Shelf(None), []

    def make():
        time.sleep(0.02)
        made.append(1)
        return len(made)

    found = []
    threads = [
        threading.Thread(target=lambda: found.append(shelf.get("a", make))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [1, 1, 1, 1]


def test_the_shelf_keeps_what_was_used_last_and_no_failure():
    shelf = Shelf(2)
    assert [shelf.get(key, lambda key=key: key) for key in "abac"] == list("abac")
    assert shelf.get("a", lambda: "again") == "a"
    assert shelf.get("b", lambda: "again") == "again"

    def fail():
        raise InputError("no")

    with pytest.raises(InputError, match="no"):
        shelf.get("d", fail)
    assert shelf.get("d", lambda: 4) == 4
