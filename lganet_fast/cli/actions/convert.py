"""Converting transforms to another file format."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ...errors import InputError
from ...runtime.files import check_extension, check_no_input
from ...runtime.reading import reading
from ...transforms.composite import LINEAR_EXTENSIONS, CompositeTransform, file_of
from ...transforms.field import DisplacementField
from ...transforms.formats import FORMATS, format_of, read_vectors, write_vectors
from ...transforms.linear_files import read_linear
from ...volumes.grid import Array, Grid
from ...volumes.nifti import check_affine, load_grid


def run(args: argparse.Namespace) -> None:
    """Convert. Raises InputError for unusable files or options."""
    target = args.to or format_of(args.output)
    check_extension(args.output, FORMATS[target].extensions)
    check_no_input(Path(args.output), [file_of(name)[0] for name in args.input])
    fixed = None if args.fixed is None else load_grid(args.fixed, "fixed")
    moving = None if args.moving is None else load_grid(args.moving, "moving")
    if args.linear is not None and target != "h5":
        raise InputError("--linear is for .h5, which keeps parts apart")
    if args.source is None and _of_parts(args.input):
        transform = CompositeTransform.load(args.input, fixed, moving)
        if target == "h5" and args.linear is None:
            transform.save(args.output)
            return
        grid = fixed or transform.grid
        if grid is None:
            raise InputError(f"{args.input[0]} stores no grid: give the fixed image, --fixed")
        field = transform.on(grid)
    elif len(args.input) > 1:
        raise InputError("--from is for one field")
    else:
        field = DisplacementField(*read_vectors(args.input[0], args.source, fixed, moving))
    if args.linear is None:
        write_vectors(field.displacement, field.grid, args.output, target, moving)
    else:
        matrix = linear_part(Path(args.linear), field.grid, moving)
        CompositeTransform.apart(field, matrix).save(args.output)


def linear_part(path: Path, fixed: Grid, moving: Grid | None) -> Array:
    """The matrix (4, 4) in RAS+ mm of a linear transform, or of a report of a registration."""
    if path.suffix.lower() == ".json":
        with reading(f"report {path}"):
            matrix = json.loads(path.read_text(encoding="utf-8"))["affine_matrix_ras_mm"]
        return check_affine(matrix, f"report {path}")
    return read_linear(path, fixed, moving)


def _of_parts(names: list[str]) -> bool:
    """Whether inputs are more than one field in a file."""
    path, backwards = file_of(names[0])
    return len(names) > 1 or backwards or path.suffix.lower() in LINEAR_EXTENSIONS
