"""The machine and versions of a run."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import Any

import torch

from lganet_fast.cli.actions.diagnosis import diagnose
from lganet_fast.runtime.hardware import output_of

from . import ROOT


def stamp() -> dict[str, Any]:
    """Processor, GPU, versions, threads, commit and date; None for what is absent."""
    found = diagnose()
    packages = {p["name"]: p["version"] for p in found["packages"]}
    devices = found["cuda"]["devices"]
    return {
        "cpu": found["system"]["cpu"],
        "cores": found["system"]["cores_usable"],
        "threads": torch.get_num_threads(),
        "simd": [name for name, has in (found["system"]["simd"] or {}).items() if has],
        "memory_gb": round((found["system"]["memory_total_mb"] or 0) / 1024, 1),
        "gpu": devices[0]["name"] if devices else None,
        "gpu_missing": found["cuda"]["reason"],
        "driver": found["cuda"]["driver"],
        "os": found["system"]["os"],
        "python": found["python"]["version"],
        "torch": found["torch"]["version"],
        "triton": packages["triton"],
        "native": found["extension"]["cpu"] or "compiled",
        "native_cuda": found["extension"]["cuda"] or "compiled",
        "lganet_fast": found["lganet_fast"]["version"],
        "commit": commit(),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    }


def commit() -> str | None:
    """The commit of the sources, marked if files were changed."""
    git = ("git", "-C", str(ROOT))
    name = output_of(*git, "rev-parse", "--short=12", "HEAD")
    changed = name and output_of(*git, "status", "--porcelain", "--untracked-files=no")
    return f"{name} with changes" if changed else name


def name(stamp: dict[str, Any]) -> str:
    """The name of the machine's files: processor, widest vectors, cores, GPU."""
    widest = [s for s in stamp["simd"] if s in ("AVX2", "AVX-512", "NEON", "SVE")][-1:]
    words = [stamp["cpu"] or "cpu", *widest, f"{stamp['cores']} cores", stamp["gpu"] or ""]
    text = re.sub(r"\(R\)|\(TM\)|CPU|@.*", " ", " ".join(words))
    return "-".join(re.findall(r"[a-z0-9.]+", text.lower()))


def line(stamp: dict[str, Any]) -> str:
    """The stamp in a sentence."""
    simd = ", ".join(stamp["simd"]) or "unknown vectors"
    gpu = stamp["gpu"] and f"{stamp['gpu']}, driver {stamp['driver']}"
    return (
        f"{stamp['cpu']} ({simd}), {stamp['cores']} cores, {stamp['threads']} threads, "
        f"{stamp['memory_gb']} GiB; {gpu or 'no GPU'}; torch {stamp['torch']}, "
        f"triton {stamp['triton'] or 'not installed'}, Python {stamp['python']}; "
        f"lganet_fast {stamp['lganet_fast']}, commit {stamp['commit'] or 'unknown'}; "
        f"{stamp['date']}"
    )
