"""Applying saved transforms to images, label maps and points."""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import numpy as np

from ...errors import InputError, InputWarning
from ...runtime.files import check_extension, check_no_input
from ...transforms.composite import CompositeTransform, Inverse, file_of
from ...transforms.interpolation import OF_IMAGES, OF_LABELS
from ...volumes.grid import Grid
from ...volumes.markups import is_markups
from ...volumes.nifti import IMAGE_EXTENSIONS, load_grid, load_labels, save_volume
from ...volumes.points import (
    POINT_EXTENSIONS,
    from_world,
    read_table,
    to_world,
    units_of,
    write_table,
)
from ...volumes.series import Series, load_series

MISSED_MM = 0.01  # a point with a larger error has no inverse


def run(args: argparse.Namespace) -> None:
    """Apply the transforms. Raises InputError for unusable files and options."""
    transforms = [file_of(name)[0] for name in args.transform]
    for source in (*transforms, args.image, args.labels, args.points, args.reference):
        if source is not None:
            check_no_input(Path(args.out), [source])
    if args.points is None:
        _refuse(args, "units", "moving_grid", why="is for --points")
        _move_volume(args)
    else:
        _refuse(args, "reference", "interpolation", "default_value", why="is not for --points")
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
    sides = (series.grid, reference) if args.inverse else (reference, series.grid)
    transform = CompositeTransform.load(args.transform, *sides)
    if args.inverse:
        transform = transform.inverse()
    onto = reference or transform.grid
    if onto is None:
        raise InputError("--reference is missing: the first transform stores no grid")
    field, ends = transform.sampled(onto)
    if ends:
        _warn(
            f"{100 * ends:.1f} % of the result lies outside the grid of a transform, which ends "
            "there as in ITK: what it moved may show twice or be missing"
        )
    default = args.default_value or 0.0
    if args.labels is not None and default < 0:
        raise InputError(
            f"--default-value for --labels must be a label, from 0 on, got {default:g}"
        )
    parts = [field.apply(one, None, interpolation, default) for one in series.volumes()]
    result = parts[0].data if len(parts) == 1 else np.stack([part.data for part in parts], -1)
    if series.data.any() and (result == default).all():
        side = "fixed" if args.inverse else "moving"
        _warn(
            f"the result is {default:g} everywhere: is {series.name} on the {side} side of the "
            "transform?"
        )
    save_volume(args.out, result, onto, series.step, series.unit)


def read_series(image: str | None, labels: str | None) -> Series:
    """Read the input: an image, a series of images, or labels."""
    if image is not None:
        return load_series(image, "image")
    volume = load_labels(str(labels), "labels")
    return Series(volume.data[..., None], volume.grid, volume.name)


def _move_points(args: argparse.Namespace) -> None:
    check_extension(args.out, POINT_EXTENSIONS)
    table = read_table(args.points)
    units = units_of(table, args.units, args.points)
    written = "lps" if is_markups(args.out) else args.units or (table.units and "lps") or units
    voxels = "voxel" in (units, written)
    if voxels and args.moving_grid is None:
        raise InputError("--units voxel needs --moving-grid: the moving image")
    if not voxels:
        _refuse(args, "moving_grid", why="is for --units voxel")
    moving = None if args.moving_grid is None else load_grid(args.moving_grid, "moving grid")
    transform = CompositeTransform.load(args.transform)
    if voxels and transform.grid is None:
        raise InputError("--units voxel needs a transform that stores the fixed grid")
    sides: list[Grid | None] = [moving, transform.grid]
    if args.inverse:
        sides.reverse()
    else:
        transform = transform.inverse()
    points = to_world(table.points, units, sides[0])
    moved, within = transform.trace(points)
    if outside := int((~within).sum()):
        _warn(f"{outside} of {len(points)} points lie outside the transform's grid")
    if any(isinstance(part, Inverse) for part in transform.parts):
        missed = np.linalg.norm(transform.inverse().map(moved) - points, axis=1) > MISSED_MM
        if count := int((missed & within).sum()):
            _warn(
                f"{count} of {len(points)} points have no inverse to within {MISSED_MM} mm; the "
                "nearest point found is written"
            )
    write_table(args.out, table, from_world(moved, written, sides[1]))


def _warn(message: str) -> None:
    warnings.warn(message, category=InputWarning, stacklevel=3)
