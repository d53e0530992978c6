"""The command `lganet-fast`, also as `python -m lganet_fast`."""

import ctypes
import os
import sys

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # of glibc's malloc.h


def wait_politely() -> None:
    """Have GNU's threads spin only shortly while they wait; to be called before torch loads.

    By default they do for milliseconds: beside other work on the same cores that made a
    registration five times slower.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def keep_memory() -> None:
    """Have glibc keep what is freed: an iteration asks for volumes that the last one gave back.

    Fresh pages cost as much as the arithmetic on them.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library
        return
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(M_TOP_PAD, 2**26)


def main() -> int:
    """Run the command; returns its exit code."""
    wait_politely()
    keep_memory()
    from .cli import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
