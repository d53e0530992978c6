"""Linear maps of points in RAS+ mm as (4, 4) matrices: kinds, steps within a kind, rotations."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import torch

from ...volumes.grid import Array

# Steps of the super-Fibonacci spiral (Alexa, CVPR 2022): the root of 2, and that of x^4 = x + 4.
PHI, PSI = 2**0.5, 1.533751168755204288118041


def basis(kind: str) -> Array:
    """(12, k): the infinitesimal changes of a kind of map, each a (3, 4) matrix by rows.

    kind: "rigid", "similarity" or "affine". The first three columns of a change rotate, scale or
    shear about the centre, the last one shifts.
    """
    shifts = []
    for axis in range(3):
        change = np.zeros((3, 4))
        change[axis, 3] = 1
        shifts.append(change)
    turns = []
    for axis in range(3):
        change = np.zeros((3, 4))
        change[(axis + 1) % 3, (axis + 2) % 3] = -1
        change[(axis + 2) % 3, (axis + 1) % 3] = 1
        turns.append(change)
    found = {
        "rigid": shifts + turns,
        "similarity": [*shifts, *turns, np.eye(3, 4)],
        "affine": list(np.eye(12).reshape(12, 3, 4)),
    }[kind]
    return np.stack([change.ravel() for change in found], 1)


def stepped(matrix: Array, change: Array, centre: Array) -> Array:
    """A map followed by exp of a change (3, 4) about a point (3,) of the moving image."""
    generator = np.zeros((4, 4))
    generator[:3] = change
    about = np.eye(4)
    about[:3, 3] = centre
    small = torch.linalg.matrix_exp(torch.from_numpy(generator)).numpy()
    return np.asarray(about @ small @ np.linalg.inv(about) @ matrix)


def about(linear: Array, fixed: Array, moving: Array) -> Array:
    """The map with a linear part (3, 3) that takes one point (3,) to another."""
    out = np.eye(4)
    out[:3, :3] = linear
    out[:3, 3] = moving - linear @ fixed
    return out


def rotations(count: int) -> Array:
    """(count, 3, 3) rotations, evenly distributed over all rotations."""
    s = np.arange(count) + 0.5
    radius, rest = np.sqrt(s / count), np.sqrt(1 - s / count)
    alpha, beta = 2 * np.pi * s / PHI, 2 * np.pi * s / PSI
    x, y = radius * np.sin(alpha), radius * np.cos(alpha)
    z, w = rest * np.sin(beta), rest * np.cos(beta)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), -1, 0)


def signed_permutations() -> list[Array]:
    """The 48 matrices (3, 3) that permute the axes and change their signs."""
    return [
        np.eye(3)[list(order)] * np.array(signs)[:, None]
        for order in permutations(range(3))
        for signs in product((1.0, -1.0), repeat=3)
    ]


def degrees(linear: Array) -> float:
    """The angle of the rotation nearest to a linear map (3, 3), in degrees."""
    left, _, right = np.linalg.svd(linear)
    return float(np.degrees(np.arccos(np.clip((np.trace(left @ right) - 1) / 2, -1, 1))))
