"""Whether a rotated moving image fits the fixed image better."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..ops import warp
from ..runtime.device import fetched
from ..volumes.grid import Array
from .linear.maps import degrees, signed_permutations
from .separable import shrink
from .workspace import Workspace

SIDE = 32  # voxels of the coarse grid's longest side
BINS, BRIGHTEST = 16, 1.2  # of the histograms; a foreground's 99th percentile is 1
LEAST_SIDE = 4


@dataclass(frozen=True)
class Turn:
    """The best of some rotations of the moving image about its centre of mass; see `rotations`.

    straight: normalised mutual information of the unrotated images, as they lie or with aligned
    centres of mass, whichever is larger; 1 if they have nothing in common, 2 if one determines
    the other. best: the largest over the rotations; degrees: the angle of that rotation.
    """

    straight: float
    best: float
    degrees: float


def rotations() -> list[Array]:
    """The 24 rotations of a cube onto itself, the identity first, and 26 rotations by 45 degrees.

    As matrices. Those by 45 degrees are about the axes through the cube's faces, edges and
    corners, in both directions: any rotation by 45 to 180 degrees is near one of the 50.
    """
    found = [matrix for matrix in signed_permutations() if np.linalg.det(matrix) > 0]
    for line in product((1.0, 0.0, -1.0), repeat=3):
        if any(line):
            axis = np.array(line) / np.linalg.norm(line)
            cross = np.cross(np.eye(3), axis).T  # of the axis with a vector
            found.append(np.eye(3) + np.sqrt(0.5) * cross + (1 - np.sqrt(0.5)) * cross @ cross)
    return found


@torch.no_grad()
def best_turn(work: Workspace) -> Turn:
    """Find the best rotation of a workspace's moving image, on a coarse grid."""
    size = work.grid.shape
    factor = max(1.0, max(size) / SIDE)
    a, b, c = (min(n, max(LEAST_SIDE, round(n / factor))) for n in size)
    fixed, moving = (
        torch.from_numpy(fetched(shrink(x, (a, b, c)))).float() for x in (work.fixed, work.moving)
    )
    centres = centre_of_mass(fixed), centre_of_mass(moving)
    places = np.stack(np.meshgrid(*map(np.arange, (a, b, c)), indexing="ij"), -1)
    values, turns = [], rotations()
    if (flat := work.grid.flat) is not None:  # those that keep a 2D image in its plane
        turns = [matrix for matrix in turns if abs(matrix[flat, flat]) > 1 - 1e-9]
    for matrix in turns:
        flow = centres[1] + (places - centres[0]) @ matrix.T - places
        moved = warp(moving, torch.from_numpy(np.moveaxis(flow, -1, 0)).float()[None])
        values.append(mutual_information(fixed.numpy(), moved.numpy()))
    straight = max(values[0], mutual_information(fixed.numpy(), moving.numpy()))
    number = 1 + int(np.argmax(values[1:]))
    return Turn(straight, values[number], degrees(turns[number]))


def centre_of_mass(image: Tensor) -> Array:
    """The mean position, in voxels, of an image (1, 1, H, W, D), weighted by intensity."""
    weight = image[0, 0].double().clamp(0, 1).numpy()
    total = weight.sum() or 1.0
    sums = (weight.sum((*{0, 1, 2} - {axis},)) for axis in range(3))
    return np.array([line @ np.arange(len(line)) / total for line in sums])


def mutual_information(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """Normalised, (H(a) + H(b)) / H(a, b) (Studholme et al., 1999): 1 to 2; 1 of flat images."""
    levels = [np.clip(x.ravel() / BRIGHTEST * BINS, 0, BINS - 1).astype(int) for x in (one, other)]
    counts = np.bincount(levels[0] * BINS + levels[1], minlength=BINS * BINS)
    joint = (counts / counts.sum()).reshape(BINS, BINS)

    def entropy(p: Array) -> float:
        return float(-(p[p > 0] * np.log(p[p > 0])).sum())

    both = entropy(joint.ravel())
    return (entropy(joint.sum(0)) + entropy(joint.sum(1))) / both if both > 0 else 1.0
