"""The command `lganet-fast`, also as `python -m lganet_fast`."""

import os
import sys

from . import heap


def wait_politely() -> None:
    """Have GNU's threads spin only shortly while they wait; to be called before torch loads.

    By default they do for milliseconds: beside other work on the same cores that made a
    registration five times slower.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def main() -> int:
    """Run the command; returns its exit code."""
    wait_politely()
    heap.keep()
    from .cli import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
