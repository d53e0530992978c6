"""How the commands have glibc's malloc treat large tensors; other libraries are left alone."""

import ctypes

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -2, -3, -4  # of malloc.h


def keep() -> None:
    """Keep what is freed: an iteration asks for volumes that the last one gave back.

    Fresh pages cost as much as the arithmetic on them.
    """
    _set({M_MMAP_MAX: 0, M_TRIM_THRESHOLD: 2**31 - 1, M_TOP_PAD: 2**26})


def give_back() -> None:
    """Give back what is freed at once: slower, and no gap between tensors stays unused."""
    _set({M_MMAP_MAX: 2**16, M_MMAP_THRESHOLD: 2**20, M_TRIM_THRESHOLD: 2**17, M_TOP_PAD: 2**17})


def _set(options: dict[int, int]) -> None:
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library
        return
    for option, value in options.items():
        mallopt(option, value)
