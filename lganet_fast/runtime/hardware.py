"""The machine's hardware: processor, memory, CUDA devices. No probe raises."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import torch

from .machine import available_memory

T = TypeVar("T")

SIMD = {  # name: the flag by which Linux calls it, on x86 and on Arm
    "AVX2": "avx2",
    "AVX-512": "avx512f",
    "AVX-512 BF16": "avx512_bf16",
    "AMX BF16": "amx_bf16",
    "NEON": "asimd",
    "SVE": "sve",
    "BF16": "bf16",
}
X86 = ("x86_64", "AMD64", "i386", "i686")


def attempt(probe: Callable[[], T]) -> T | None:
    """The probe's result; None if it fails for any reason, so that a diagnosis continues."""
    try:
        return probe()
    except Exception:
        return None


def package_version(name: str) -> str | None:
    """Version of an installed package."""
    return attempt(lambda: metadata.version(name))


def system() -> dict[str, Any]:
    """Operating system, processor and memory."""
    total = attempt(lambda: os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "os": platform.platform(),
        "architecture": platform.machine(),
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "cores_usable": len(affinity(0)) if affinity else os.cpu_count(),
        "simd": simd(),
        "memory_total_mb": megabytes(total),
        "memory_available_mb": megabytes(attempt(lambda: available_memory(torch.device("cpu")))),
    }


def megabytes(count: int | None) -> int | None:
    """Bytes as whole MB."""
    return None if count is None else count // 2**20


def cpuinfo() -> dict[str, str]:
    """The first processor's entry in /proc/cpuinfo; empty on other systems."""
    text = attempt(lambda: Path("/proc/cpuinfo").read_text(encoding="utf-8")) or ""
    lines = text.strip().split("\n\n")[0].splitlines()
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def cpu_model() -> str | None:
    """The processor's name."""
    name = cpuinfo().get("model name")
    if name is None and sys.platform == "darwin":
        name = output_of("sysctl", "-n", "machdep.cpu.brand_string")
    return name or platform.processor() or None


def simd() -> dict[str, bool] | None:
    """Which of the vector instructions used by the operations this processor has."""
    info = cpuinfo()
    flags = (info.get("flags") or info.get("Features") or "").split()
    if not flags:
        return None
    arm = ("NEON", "SVE", "BF16")
    names = [name for name in SIMD if (name in arm) != (platform.machine() in X86)]
    return {name: SIMD[name] in flags for name in names}


def output_of(*command: str) -> str | None:
    """The first line of a command's output; None if it is missing or fails."""
    finished = attempt(
        lambda: subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    )
    return finished.stdout.strip().split("\n")[0] if finished and finished.stdout else None


def cuda_devices() -> dict[str, Any]:
    """CUDA devices and driver, or the reason if there are none."""
    driver = output_of("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    count = attempt(torch.cuda.device_count) or 0
    devices = [device for i in range(count) if (device := attempt(partial(cuda_device, i)))]
    return {
        "devices": devices,
        "driver": driver,
        "reason": None if devices else why_no_cuda(driver),
    }


def cuda_device(index: int) -> dict[str, Any]:
    """Name, compute capability and memory of one CUDA device."""
    properties = torch.cuda.get_device_properties(index)
    return {
        "name": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "memory_total_mb": megabytes(properties.total_memory),
        "memory_available_mb": megabytes(torch.cuda.mem_get_info(index)[0]),
    }


def why_no_cuda(driver: str | None) -> str:
    """One line on why PyTorch has no CUDA device."""
    if torch.version.cuda is None:
        return "this PyTorch is a build without CUDA"
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return "CUDA_VISIBLE_DEVICES hides every device"
    if driver is None:
        return "no NVIDIA driver found (nvidia-smi does not answer)"
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except Exception as error:
        return str(error).strip().split("\n")[0]
    return f"driver {driver} is installed, but no device answers"
