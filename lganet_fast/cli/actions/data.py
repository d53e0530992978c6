"""Listing and checking a data set."""

from __future__ import annotations

import argparse

from ...data.inspection import inspect
from ...errors import InputError
from ..options import read_config


def run(args: argparse.Namespace) -> None:
    """Print the problems and counts. Raises InputError if there is any problem."""
    found = inspect(read_config(args))
    for problem in found.problems:
        print(problem)
    counts = ", ".join(f"{count} {split}" for split, count in found.pairs.items())
    print(f"pairs: {counts}; {found.files} files")
    if count := len(found.problems):
        raise InputError(f"{count} problem{'s' * (count > 1)} in the data")
