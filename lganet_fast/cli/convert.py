"""`lganet-fast convert`: a transform from one file format to another."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..runtime.files import check_extension, check_no_input
from ..transforms.formats import FORMATS, format_of, read_vectors, write_vectors
from ..volumes.nifti import load_grid


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    formats = "\n".join(
        f"  {name:<14} {kind.holds} ({', '.join(kind.extensions)})"
        for name, kind in FORMATS.items()
    )
    parser = subparsers.add_parser(
        "convert",
        help="write a transform in another file format",
        description="Write a displacement field in another file format. It lives on the fixed "
        f"image's\ngrid and points from fixed to moving.\n\nformats:\n{formats}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("input", metavar="IN", help="transform to read")
    parser.add_argument("output", metavar="OUT", help="file to write")
    parser.add_argument(
        "--to",
        choices=FORMATS,
        metavar="FORMAT",
        help="format to write (default: itk for .nii and .nii.gz, h5 for .h5)",
    )
    parser.add_argument(
        "--from",
        dest="source",
        choices=FORMATS,
        metavar="FORMAT",
        help="format to read it as (default: told by the content; needed where that says nothing "
        "of the units)",
    )
    parser.add_argument(
        "--fixed", metavar="F", help="fixed image, for input formats that do not carry its grid"
    )
    parser.add_argument(
        "--moving", metavar="M", help="moving image, for formats that count in voxels"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Convert. Raises InputError where either file or an option does not fit."""
    target = args.to or format_of(args.output)
    check_extension(args.output, FORMATS[target].extensions)
    check_no_input(Path(args.output), [args.input])
    fixed = None if args.fixed is None else load_grid(args.fixed, "fixed")
    moving = None if args.moving is None else load_grid(args.moving, "moving")
    field = read_vectors(args.input, args.source, fixed, moving)
    write_vectors(*field, args.output, target, moving)
