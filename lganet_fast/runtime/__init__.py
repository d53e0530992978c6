"""Basics of a run: atomic files, errors of damaged input, devices, threads, ranks.

Imports only errors and version of the package; torch only in modules that need it.
"""

from typing import Any

from ..lazy import attach

__all__ = [
    "atomic",
    "available_memory",
    "choose_device",
    "guard_memory",
    "peak_memory_mb",
    "report_json",
    "set_threads",
    "staged_folder",
    "too_large",
    "versions",
    "write_report_json",
]

_load = attach(
    __name__,
    {
        "atomic": "files",
        "available_memory": "machine",
        "choose_device": "machine",
        "guard_memory": "machine",
        "peak_memory_mb": "machine",
        "report_json": "json_files",
        "set_threads": "machine",
        "staged_folder": "files",
        "too_large": "machine",
        "versions": "machine",
        "write_report_json": "json_files",
    },
)


def __getattr__(name: str) -> Any:
    """Load a public name from its module."""
    return _load(name)
