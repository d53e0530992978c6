"""Masks of either image: what they hide has no effect."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic import mean_error, source, synthetic_pair

from lganet_fast import InputError, register

FAST = {"iterations": (15, 15, 6), "threads": 1}


@pytest.mark.parametrize("similarity", ["lncc", "mse", "mind"])
def test_mask_keeps_a_lesion_from_pulling(similarity):
    """What the fixed image alone shows drags the map along, unless it is masked."""
    pair = synthetic_pair()
    grid = pair.fixed.grid
    lesion = np.linalg.norm(grid.world() - [-6, -6, 0], axis=-1) < 8
    sick = np.where(lesion, 0.05, pair.fixed.data).astype(np.float32), grid.affine
    mask = (~lesion).astype(np.uint8), grid.affine
    naive, masked = (
        mean_error(
            register(sick, source(pair.moving), fixed_mask=m, similarity=similarity, **FAST),
            pair,
            lesion,
        )
        for m in (None, mask)
    )
    assert masked[0] < 0.85 * naive[0]
    if similarity == "lncc":
        assert masked[0] < 0.3 * naive[0]
        assert masked[0] < 0.6 * masked[1]


def test_a_moving_mask_keeps_a_lesion_of_the_moving_image_from_pulling():
    pair = synthetic_pair()
    grid = pair.moving.grid
    lesion = np.linalg.norm(grid.world() - [-6, -6, 0], axis=-1) < 8
    sick = np.where(lesion, 0.05, pair.moving.data).astype(np.float32), grid.affine
    mask = (~lesion).astype(np.uint8), grid.affine
    near = np.linalg.norm(pair.to_moving(pair.fixed.grid.world()) - [-6, -6, 0], axis=-1) < 8
    naive, masked = (
        mean_error(register(source(pair.fixed), sick, moving_mask=m, **FAST), pair, near)
        for m in (None, mask)
    )
    assert masked[0] < 0.4 * naive[0]
    assert masked[0] < 0.6 * masked[1]


def test_masks_that_leave_nothing_are_refused():
    pair = synthetic_pair()
    x = pair.fixed.grid.world()[..., 0]
    left, right, corner = (
        (where.astype(np.uint8), pair.fixed.grid.affine) for where in (x < -5, x > 5, x < -34)
    )
    images = source(pair.fixed), source(pair.moving)
    with pytest.raises(InputError, match="the masks leave no place that counts in both images"):
        register(*images, fixed_mask=left, moving_mask=right)
    with pytest.raises(InputError, match="moving_mask does not overlap the foreground of moving"):
        register(*images, moving_mask=corner)


def test_what_a_mask_hides_has_no_say():
    pair = synthetic_pair()
    grid = pair.fixed.grid
    hidden = np.linalg.norm(grid.world() - [-6, -6, 0], axis=-1) < 8
    mask = (~hidden).astype(np.uint8), grid.affine
    fields = [
        register(
            (np.where(hidden, value, pair.fixed.data).astype(np.float32), grid.affine),
            source(pair.moving),
            fixed_mask=mask,
            iterations=(15,),
        ).transform.displacement
        for value in (0.05, 0.6)
    ]
    assert np.abs(fields[0] - fields[1]).max() < 0.05
