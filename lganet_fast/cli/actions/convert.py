"""Converting a transform to another file format."""

from __future__ import annotations

import argparse
from pathlib import Path

from ...runtime.files import check_extension, check_no_input
from ...transforms.formats import FORMATS, format_of, read_vectors, write_vectors
from ...volumes.nifti import load_grid


def run(args: argparse.Namespace) -> None:
    """Convert. Raises InputError for an unusable file or option."""
    target = args.to or format_of(args.output)
    check_extension(args.output, FORMATS[target].extensions)
    check_no_input(Path(args.output), [args.input])
    fixed = None if args.fixed is None else load_grid(args.fixed, "fixed")
    moving = None if args.moving is None else load_grid(args.moving, "moving")
    field = read_vectors(args.input, args.source, fixed, moving)
    write_vectors(*field, args.output, target, moving)
