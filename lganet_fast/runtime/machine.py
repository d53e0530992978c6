"""Devices, versions and memory of the machine."""

from __future__ import annotations

import math
import os
import platform
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from numbers import Integral

import torch

from ..errors import InputError, InputWarning
from ..version import __version__

PACKAGES = ("torch", "numpy", "scipy", "nibabel", "SimpleITK")


def versions() -> dict[str, str]:
    """Versions of everything that a result depends on, without packages not installed."""
    found = {"lganet_fast": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def choose_device(name: str) -> torch.device:
    """Turn "auto" (CUDA if available, else the CPU), "cpu", "cuda" or "cuda:N" into a device.

    Raises InputError for a device that does not exist.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    present = ["cpu", *(f"cuda:{i}" for i in range(count))]
    if name == "auto":
        return torch.device("cuda" if count else "cpu")
    if name in present or (name == "cuda" and count):
        return torch.device(name)
    raise InputError(f"device must be auto or one of {', '.join(present)}, got {name!r}")


def available_memory(device: torch.device) -> int | None:
    """Bytes free for new tensors on the device; None if unknown."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            fields = dict(line.split(":", 1) for line in lines)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None


def peak_memory_mb(device: torch.device) -> float | None:
    """Peak memory of this process: on the GPU if it runs there, else in RAM."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20, 1)


def _forked() -> None:
    """Use one thread in a forked process: OpenMP would wait for threads of the parent only."""
    global _alone  # noqa: PLW0603
    _alone = True
    torch.set_num_threads(1)


MOST_THREADS = 1024  # far more than cores, and a process can no longer start them
_alone = False  # whether this process may compute on one thread only
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def set_threads(threads: int | None) -> int:
    """Set the number of CPU threads (None: all that this process may use); returns it.

    A forked process gets one, with a warning if more were requested.
    Raises InputError unless it is a whole number from 1 to MOST_THREADS.
    """
    known = threads is None or (isinstance(threads, Integral) and 1 <= threads <= MOST_THREADS)
    if not known:
        raise InputError(
            f"threads must be a whole number from 1 to {MOST_THREADS}, got {threads!r}"
        )
    if _alone:
        if threads is not None and threads > 1:
            warnings.warn(
                "a forked process computes on one thread: start workers by spawn for more",
                InputWarning,
                stacklevel=2,
            )
        threads = 1
    affinity = getattr(os, "sched_getaffinity", None)
    default = len(affinity(0)) if affinity else os.cpu_count() or 1
    torch.set_num_threads(threads or default)
    return torch.get_num_threads()


@contextmanager
def guard_memory(shape: tuple[int, ...], device: torch.device, per_voxel: int) -> Iterator[None]:
    """Raise InputError, before or when memory runs out, with the size that would fit.

    shape: the working grid. per_voxel: bytes of memory per voxel.
    """
    need, free = per_voxel * math.prod(shape), available_memory(device)
    if free is not None and need > free:
        raise InputError(too_large(shape, need, free, per_voxel))
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise InputError(too_large(shape, need, free, per_voxel)) from error
    except RuntimeError as error:  # PyTorch's error on a CPU
        if "alloc" not in str(error):
            raise
        raise InputError(too_large(shape, need, free, per_voxel)) from error


def too_large(shape: tuple[int, ...], need: int, free: int | None, per_voxel: int) -> str:
    """One line on the size that was too large and the size that would fit."""
    size = "x".join(map(str, shape))
    line = f"out of memory: {size} working voxels need about {need / 2**30:.1f} GiB"
    if free is None:
        return line
    side = int((free / per_voxel) ** (1 / 3))
    return (
        f"{line}, {free / 2**30:.1f} GiB are free; {side}x{side}x{side} voxels would fit: "
        "resample or crop the images"
    )
