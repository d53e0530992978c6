"""Applying a saved transform to images, label maps and points."""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import numpy as np

from ...errors import InputError, InputWarning
from ...runtime.files import check_extension, check_no_input
from ...transforms.field import DisplacementField
from ...transforms.interpolation import OF_IMAGES, OF_LABELS
from ...volumes.grid import Grid
from ...volumes.nifti import IMAGE_EXTENSIONS, load_grid, load_labels, save_volume
from ...volumes.points import UNITS, from_world, read_table, to_world, write_table
from ...volumes.sampling import inside
from ...volumes.series import Series, load_series

MISSED_MM = 0.01  # a point with a larger error has no inverse


def run(args: argparse.Namespace) -> None:
    """Apply the transform. Raises InputError for unusable files and options."""
    for source in (args.transform, args.image, args.labels, args.points, args.reference):
        if source is not None:
            check_no_input(Path(args.out), [source])
    if args.points is None:
        _refuse(args, "units", "moving_grid", why="is for --points")
        _move_volume(args)
    else:
        _refuse(args, "reference", "interpolation", why="is not for --points")
        _move_points(args)


def _refuse(args: argparse.Namespace, *names: str, why: str) -> None:
    for name in names:
        if getattr(args, name) is not None:
            raise InputError(f"--{name.replace('_', '-')} {why}")


def _move_volume(args: argparse.Namespace) -> None:
    kind, allowed = ("labels", OF_LABELS) if args.image is None else ("image", OF_IMAGES)
    interpolation = args.interpolation or allowed[0]
    if interpolation not in allowed:
        raise InputError(f"--interpolation for --{kind} must be {' or '.join(allowed)}")
    if args.inverse and args.reference is None:
        raise InputError("--inverse needs --reference: the moving image")
    check_extension(args.out, IMAGE_EXTENSIONS)
    series = read_series(args.image, args.labels)
    reference = None if args.reference is None else load_grid(args.reference, "reference")
    field = DisplacementField.load(args.transform)
    if args.inverse:
        field = field.invert(reference)
    parts = [field.apply(volume, reference, interpolation) for volume in series.volumes()]
    result = parts[0].data if len(parts) == 1 else np.stack([part.data for part in parts], -1)
    if series.data.any() and not result.any():
        side = "fixed" if args.inverse else "moving"
        warnings.warn(
            f"the result is 0 everywhere: is {series.name} on the {side} side of the transform?",
            category=InputWarning,
            stacklevel=2,
        )
    save_volume(args.out, result, parts[0].grid, series.step, series.unit)


def read_series(image: str | None, labels: str | None) -> Series:
    """Read the input: an image, a series of images, or labels."""
    if image is not None:
        return load_series(image, "image")
    volume = load_labels(str(labels), "labels")
    return Series(volume.data[..., None], volume.grid, volume.name)


def _move_points(args: argparse.Namespace) -> None:
    check_extension(args.out, (".csv",))
    table = read_table(args.points)
    if args.units is None and table.header is None:
        raise InputError(
            f"points {args.points} have no header x,y,z: give their units with --units "
            f"{' or '.join(UNITS)}"
        )
    units = args.units or "lps"
    if units == "voxel" and args.moving_grid is None:
        raise InputError("--units voxel needs --moving-grid: the moving image")
    if units != "voxel":
        _refuse(args, "moving_grid", why="is for --units voxel")
    moving = None if args.moving_grid is None else load_grid(args.moving_grid, "moving grid")
    field = DisplacementField.load(args.transform)
    sides: list[Grid | None] = [moving, field.grid]
    if args.inverse:
        sides.reverse()
    points = to_world(table.points, units, sides[0])
    moved = field.map(points) if args.inverse else field.map_inverse(points)
    fixed, target = (points, moved) if args.inverse else (moved, points)
    within = inside(field.grid.to_index(fixed), field.grid.shape)
    if outside := int((~within).sum()):
        warnings.warn(
            f"{outside} of {len(points)} points lie outside the transform's grid",
            category=InputWarning,
            stacklevel=2,
        )
    missed = np.linalg.norm(field.map(fixed) - target, axis=1) > MISSED_MM
    if count := int((missed & within).sum()):
        warnings.warn(
            f"{count} of {len(points)} points have no inverse to within {MISSED_MM} mm; the "
            "nearest point found is written",
            category=InputWarning,
            stacklevel=2,
        )
    write_table(args.out, table, from_world(moved, units, sides[1]))
