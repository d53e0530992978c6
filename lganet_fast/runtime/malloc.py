"""Settings of glibc's malloc for large tensors; other C libraries are not changed."""

import ctypes

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -2, -3, -4  # of malloc.h


def keep() -> None:
    """Keep freed memory for reuse: each iteration allocates what the last one freed.

    Fresh pages cost as much as the arithmetic on them.
    """
    _set({M_MMAP_MAX: 0, M_TRIM_THRESHOLD: 2**31 - 1, M_TOP_PAD: 2**26})


def give_back() -> None:
    """Return freed memory at once: slower, but without unused gaps between tensors."""
    _set({M_MMAP_MAX: 2**16, M_MMAP_THRESHOLD: 2**20, M_TRIM_THRESHOLD: 2**17, M_TOP_PAD: 2**17})


def _set(options: dict[int, int]) -> None:
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library
        return
    for option, value in options.items():
        mallopt(option, value)
