"""Scores of a registration by labels, landmarks and its inverse, and of its deformation."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ..errors import InputError
from ..runtime.device import numbers, placed, true_places
from ..transforms.jacobian import jacobian_determinant
from ..volumes.grid import Array, Grid, slab_size
from ..volumes.resample import index_flow, reaches, read, squared_length, turned
from .label_maps import coded, listed, present
from .surface_distance import hd95

if TYPE_CHECKING:
    from ..transforms.field import DisplacementField

__all__ = [
    "Overlap",
    "dice",
    "folded_percent",
    "folded_percent_published",
    "hd95",
    "inverse_consistency",
    "jacobian_determinant",
    "mean_known",
    "overlap",
    "present",
    "sdlogj",
    "tre",
]


class Overlap(NamedTuple):
    """Voxel counts of one label: in the reference, in the other map, and in both.

    The ratios of a label that neither map has are NaN; otherwise a ratio is 0 if its denominator
    is 0.
    """

    reference: int
    other: int
    both: int

    @property
    def dice(self) -> float:
        """2 |A and B| / (|A| + |B|) (Dice, 1945)."""
        total = self.reference + self.other
        return 2 * self.both / total if total else float("nan")

    @property
    def recall(self) -> float:
        """|A and B| / |A|: the fraction of the reference that is in the other map."""
        return self._share(self.reference)

    @property
    def precision(self) -> float:
        """|A and B| / |B|: the fraction of the other map that is in the reference."""
        return self._share(self.other)

    def _share(self, total: int) -> float:
        if total:
            return self.both / total
        return 0.0 if self.reference or self.other else float("nan")


def overlap(
    reference: NDArray, other: NDArray, labels: Iterable[int] | None = None
) -> dict[int, Overlap]:
    """Voxel counts per label from one pass over both maps.

    reference, other: integer label maps of one shape. labels: those to count, by default all but 0
    that occur in either, ascending. Raises InputError if the shapes differ.
    """
    names = listed(reference, other, labels)
    a, b = coded(reference, names), coded(other, names)
    n = len(names) + 1
    counts_a, counts_b = np.bincount(a.ravel(), minlength=n), np.bincount(b.ravel(), minlength=n)
    counts_both = np.bincount(a[a == b], minlength=n)
    triples = zip(counts_a[1:], counts_b[1:], counts_both[1:], strict=True)
    return {name: Overlap(*map(int, triple)) for name, triple in zip(names, triples, strict=True)}


def dice(a: NDArray, b: NDArray, labels: Iterable[int] | None = None) -> dict[int, float]:
    """Dice coefficient of each label, NaN for a label that neither map has.

    a, b: integer label maps of one shape. labels: by default all but 0 that occur in either.
    Raises InputError if the shapes differ.
    """
    return {label: counts.dice for label, counts in overlap(a, b, labels).items()}


def folded_percent(det: NDArray) -> float:
    """Percentage of voxels whose Jacobian determinant is 0 or less (VoxelMorph, TransMorph).

    det: from `jacobian_determinant` with central differences. A NaN counts as folded.
    """
    return float(100 * np.mean(~(det > 0)))


def folded_percent_published(
    displacement: NDArray, grid: Grid, mask: NDArray | None = None
) -> float:
    """Percentage of negative determinants, as in the published LGANet++ evaluation.

    Forward differences, the last plane of each axis dropped, strictly below 0.
    displacement: (X, Y, Z, 3) in RAS+ mm, on `grid`. mask: (X, Y, Z), whose non-zero voxels count;
    NaN if there is none but in the planes dropped.
    """
    det = jacobian_determinant(displacement, grid, "forward")
    if mask is not None:
        det = det[mask[tuple(map(slice, det.shape))] != 0]
    return float(100 * np.mean(det < 0)) if det.size else float("nan")


def sdlogj(det: NDArray) -> float:
    """Standard deviation of log(clip(det + 3, 1e-9, 1e9)): how uneven the deformation is.

    The definition of the Learn2Reg evaluation, whose offset of 3 keeps folds finite. Learn2Reg
    leaves out two voxels at each face: pass det[2:-2, 2:-2, 2:-2] to reproduce it.
    """
    return float(np.std(np.log(np.clip(det + 3, 1e-9, 1e9))))


def inverse_consistency(
    forward: DisplacementField, inverse: DisplacementField, mask: NDArray | None = None
) -> dict[str, float]:
    """Residual |T(T_inv(y)) - y| in mm at the voxels y of the inverse's grid.

    mask: (X, Y, Z) on that grid; only its non-zero voxels count. A voxel that the inverse maps
    outside the forward field's grid has no residual.
    Returns {"mean", "p99", "max"} in mm, NaN if there is nothing to measure, and
    "outside_percent", the percentage left out. Raises InputError for a mask of another shape.
    """
    grid = inverse.grid
    if mask is not None and mask.shape != grid.shape:
        raise InputError(f"mask must have shape {grid.shape}, got {mask.shape}")
    residuals, considered = [], []
    field, place = forward.vectors(), forward.device
    to_index = np.linalg.inv(forward.grid.affine)[:3, :3]
    for part in grid.slabs(slab_size(place)):
        way = inverse.vectors(part).to(place)
        flow = index_flow(grid, forward.grid, part, device=place) + turned(to_index, way)
        error = squared_length(way + read(field, flow))[0].sqrt_()
        known = reaches(flow, forward.grid.shape)
        if mask is not None:
            chosen = placed(mask[part] != 0, place)
            known &= chosen
            considered.append(chosen.sum())
        residuals.append(error.flatten()[true_places(known)])
    values = torch.cat(residuals)
    total = grid.size if mask is None else numbers([torch.stack(considered).sum()])[0]
    outside = 100 * (1 - len(values) / total) if total else float("nan")
    if not len(values):
        return {**dict.fromkeys(("mean", "p99", "max"), float("nan")), "outside_percent": outside}
    mean, p99, most = numbers([values.double().mean(), percentile(values, 99), values.max()])
    return {"mean": mean, "p99": p99, "max": most, "outside_percent": outside}


def mean_known(values: Iterable[float]) -> float:
    """The mean of the values that are not NaN; NaN if there are none."""
    found = np.fromiter(values, float)
    found = found[~np.isnan(found)]
    return float(found.mean()) if found.size else float("nan")


def percentile(values: Tensor, share: float) -> Tensor:
    """np.percentile of (N,) values: linear between the nearest two."""
    at = share / 100 * (len(values) - 1)
    low, high = math.floor(at), math.ceil(at)
    if values.device.type == "cpu":
        part = torch.from_numpy(np.partition(values.numpy(), (low, high)))
    else:
        part = values.sort().values
    return torch.lerp(part[low].double(), part[high].double(), at - low)


def tre(
    fixed_points: ArrayLike,
    moving_points: ArrayLike,
    transform: DisplacementField | None = None,
) -> Array:
    """Target registration error |T(p_fixed) - p_moving| of each pair of landmarks, in mm.

    fixed_points, moving_points: (N, 3) RAS+ mm, paired by row. transform: by default the identity.
    Returns (N,). Raises InputError if the shapes differ (Fitzpatrick et al., 1998).
    """
    fixed, moving = np.asarray(fixed_points, float), np.asarray(moving_points, float)
    if fixed.shape != moving.shape or fixed.ndim != 2 or fixed.shape[1] != 3:
        raise InputError(
            f"points must both have shape (N, 3), got {fixed.shape} fixed and {moving.shape} moving"
        )
    mapped = fixed if transform is None else transform.map(fixed)
    return np.asarray(np.linalg.norm(mapped - moving, axis=-1))
