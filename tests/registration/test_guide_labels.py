"""Labels that steer a registration."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from synthetic import oblique_grid, synthetic_pair

from lganet_fast import InputError, register
from lganet_fast.registration.channels import Place
from lganet_fast.registration.label_codes import CODES, coded_labels, codes_of
from lganet_fast.registration.pair import Pair
from lganet_fast.volumes.grid import Volume

GRID = oblique_grid((24, 26, 22), (3.0, 2.8, 3.2), 10)
CPU = torch.device("cpu")


def source(volume):
    return volume.data, volume.grid.affine


@pytest.fixture(scope="module")
def pair():
    """Images that show an outline alone, with labels inside."""
    found = synthetic_pair(GRID, GRID)
    flat = {
        name: Volume(np.where(image.data > 0, 0.5, 0).astype(np.float32), GRID, name)
        for name, image in (("fixed", found.fixed), ("moving", found.moving))
    }
    return Pair(flat["fixed"], flat["moving"], found.fixed_labels, found.moving_labels), found


def test_the_difference_of_codes_is_that_of_dice():
    """Of up to CODES labels exactly; of more, about."""
    random = np.random.default_rng(0)
    for count, off in ((5, 1e-5), (300, 0.1)):
        maps = [random.integers(0, count + 1, (20, 21, 22)) for _ in range(2)]
        maps[1] = np.where(random.random(maps[0].shape) < 0.6, *maps)
        fixed, moving = (Volume(x.astype(np.int32), GRID, "labels") for x in maps)
        small = Volume(fixed.data, oblique_grid(fixed.data.shape, (1.0, 2.0, 1.5), 30), "labels")
        moved = Volume(moving.data, small.grid, "labels")
        place = Place(small.grid, np.eye(4), CPU, torch.float64)
        one, other = coded_labels(Pair(small, moved, small, moved), place)
        dice = [
            2 * ((maps[0] == n) & (maps[1] == n)).sum() / sum((x == n).sum() for x in maps)
            for n in range(1, count + 1)
        ]
        assert one.shape == (1, min(count, CODES), *fixed.data.shape)
        assert (one - other).square().mean().item() == pytest.approx(1 - np.mean(dice), rel=off)


def test_codes_repeat_and_differ():
    codes = codes_of(500)
    np.testing.assert_array_equal(codes, codes_of(500))
    np.testing.assert_allclose(np.linalg.norm(codes, axis=1), 1)
    assert (codes @ codes.T - 2 * np.eye(500)).max() < 0.99


def test_a_label_of_one_map_alone_is_background():
    data = np.zeros((4, 4, 4), np.int32)
    data[0], data[1] = 7, 9
    other = np.where(data == 9, 0, data)
    grid = oblique_grid((4, 4, 4), (1, 1, 1), 0)
    fixed, moving = (Volume(x, grid, "labels") for x in (data, other))
    place = Place(grid, np.eye(4), CPU, torch.float32)
    one, two = coded_labels(Pair(fixed, moving, fixed, moving), place)
    assert torch.equal(one, two)


@pytest.mark.parametrize("mapped", [lambda x: x, lambda x: np.where(x > 0, x + 1000, 0)])
def test_labels_align_what_the_images_do_not_show(pair, mapped):
    flat, truth = pair
    labels = [(mapped(x.data), GRID.affine) for x in (flat.fixed_labels, flat.moving_labels)]
    plain, guided = (
        register(
            source(flat.fixed),
            source(flat.moving),
            fixed_labels=labels[0],
            moving_labels=labels[1],
            guide_labels=weight,
            iterations=(15, 10),
            threads=1,
        )
        for weight in (0, 1)
    )
    points = GRID.world()[np.linalg.norm(GRID.world(), axis=-1) < 18]
    errors = [
        np.linalg.norm(x.transform.map(points) - truth.to_moving(points), axis=-1).mean()
        for x in (plain, guided)
    ]
    assert errors[1] < 0.7 * errors[0]
    assert guided.details.labels.mean_dice_after > plain.details.labels.mean_dice_after + 0.02
    assert guided.details.labels.steered
    assert not plain.details.labels.steered


def test_what_is_refused(pair):
    flat, _ = pair
    images, labels = (source(flat.fixed), source(flat.moving)), source(flat.fixed_labels)
    with pytest.raises(InputError, match="guide_labels needs fixed_labels"):
        register(*images, moving_labels=labels, guide_labels=1)
    apart = np.where(labels[0] > 0, 99, 0), labels[1]
    with pytest.raises(InputError, match="have no label in common"):
        register(*images, fixed_labels=labels, moving_labels=apart, guide_labels=1.0)
    for weight in (-1, float("nan")):
        with pytest.raises(InputError, match="guide_labels must be a number from 0 to"):
            register(*images, guide_labels=weight)
