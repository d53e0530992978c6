"""The command `lganet-fast`, also as `python -m lganet_fast`."""

import os
import sys


def main() -> int:
    """Run the command; returns its exit code."""
    # GNU's threads spin while they wait, by default for milliseconds: beside other work on the same
    # cores that made a registration five times slower. To be set before torch starts them.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    from .cli import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
