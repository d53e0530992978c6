"""`lganet-fast convert`: a transform from one file format to another."""

from __future__ import annotations

import argparse

from ..transforms.formats import FORMATS


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the subcommand's options."""
    formats = "\n".join(
        f"  {name:<14} {kind.holds} ({', '.join(kind.extensions)})"
        for name, kind in FORMATS.items()
    )
    parser.description = (
        "Write a displacement field in another file format. The field is defined on the "
        "fixed\ngrid and maps fixed points to moving points. Several inputs, linear ones among "
        "them, are\nput together in the order of apply --transform: in an .h5 each part is kept "
        f"apart, else\nthey become one field.\n\nformats:\n{formats}"
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "input", metavar="IN", nargs="+", help="transform to read: as in apply --transform"
    )
    parser.add_argument("output", metavar="OUT", help="file to write")
    parser.add_argument(
        "--to",
        choices=FORMATS,
        metavar="FORMAT",
        help="format to write (default: itk for images, h5 for .h5)",
    )
    parser.add_argument(
        "--from",
        dest="source",
        choices=FORMATS,
        metavar="FORMAT",
        help="format of the input (default: detected from the content; required if the content "
        "does not record the units)",
    )
    parser.add_argument(
        "--fixed", metavar="F", help="fixed image, for input formats that do not store its grid"
    )
    parser.add_argument(
        "--linear",
        metavar="L",
        help="linear part of the field, to keep apart in an .h5: a linear transform, or the "
        "report.json of register",
    )
    parser.add_argument("--moving", metavar="M", help="moving image, for formats in voxels")
