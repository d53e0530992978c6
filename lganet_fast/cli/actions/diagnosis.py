"""Hardware and versions of this installation, and the path that each operation takes."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Any

import torch

from ...ops import OPERATIONS, choose_backend, native
from ...runtime.hardware import attempt, cuda_devices, package_version, system
from ...version import __version__

PACKAGES = {  # name: what it is for, and how to get it where the package does not require it
    "numpy": ("arrays", None),
    "scipy": ("statistics and distances", None),
    "nibabel": ("reading and writing volumes", None),
    "matplotlib": ("colours of the quality page", None),
    "tqdm": ("progress bars", None),
    "triton": ("GPU kernels", "comes with CUDA builds of PyTorch for Linux"),
    "SimpleITK": (".h5 transforms", "pip install 'lganet_fast[itk]'"),
    "nilearn": ("the template of lganet-fast demo", "pip install 'lganet_fast[demo]'"),
}


def diagnose() -> dict[str, Any]:
    """Everything about this installation that decides which paths run; never raises.

    None stands for what could not be found. Memory in MB (2^20 bytes). "operations" lists, for
    every operation on every kind of device present, the backend that runs and why no faster one
    does. "extension" says for each kind of device why nothing is compiled for it, else None.
    """
    cuda = cuda_devices()
    kinds = ["cpu", "cuda"] if cuda["devices"] else ["cpu"]
    return {
        "lganet_fast": {"version": __version__, "folder": str(Path(__file__).parents[2])},
        "python": {"version": platform.python_version(), "executable": sys.executable},
        "system": system(),
        "torch": {
            "version": torch.__version__,
            "cuda_build": torch.version.cuda,
            "simd": attempt(torch.backends.cpu.get_cpu_capability),
            "threads": torch.get_num_threads(),
        },
        "cuda": cuda,
        "extension": {"cpu": native.missing("cpu"), "cuda": native.missing("cuda")},
        "packages": [
            {"name": name, "version": package_version(name), "purpose": purpose, "install": install}
            for name, (purpose, install) in PACKAGES.items()
        ],
        "backend_variable": os.environ.get("LGANET_FAST_BACKEND"),
        "operations": [path_of(name, kind) for kind in kinds for name in OPERATIONS],
    }


def path_of(operation: str, device: str) -> dict[str, Any]:
    """The backend an operation takes on a kind of device, and why each faster one does not run."""
    try:
        choice = choose_backend(operation, device)
    except (ValueError, RuntimeError) as error:  # what LGANET_FAST_BACKEND names cannot run
        refused = {"LGANET_FAST_BACKEND": str(error)}
        return {"operation": operation, "device": device, "backend": None, "refused": refused}
    return {
        "operation": operation,
        "device": device,
        "backend": choice.backend,
        "refused": choice.refused,
    }
