"""What runs where on this machine, as text."""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Iterable
from typing import Any

from .diagnosis import diagnose

WIDTH = 100
MISSING = "not found"


def run(args: argparse.Namespace) -> None:
    """Print the diagnosis."""
    found = diagnose()
    print(json.dumps(found, indent=2) if args.json else diagnosis_text(found))


def diagnosis_text(found: dict[str, Any]) -> str:
    """The diagnosis in aligned lines of at most 100 columns."""
    parts = (
        table(machine_rows(found)),
        table(package_rows(found["packages"])),
        table(operation_rows(found)),
    )
    return "\n\n".join(parts)


def machine_rows(found: dict[str, Any]) -> list[tuple[str, str]]:
    """Versions, processor, memory and GPUs."""
    system, torch, cuda = found["system"], found["torch"], found["cuda"]
    build = f"CUDA {torch['cuda_build']} build" if torch["cuda_build"] else "build without CUDA"
    simd = system["simd"]
    vectors = simd and ", ".join(f"{k} {'yes' if there else 'no'}" for k, there in simd.items())
    rows = [
        ("lganet_fast", f"{found['lganet_fast']['version']} in {found['lganet_fast']['folder']}"),
        ("Python", f"{found['python']['version']} ({found['python']['executable']})"),
        ("System", system["os"]),
        ("Processor", f"{shown(system['cpu'])} ({system['architecture']})"),
        (
            "Cores",
            f"{shown(system['cores'])}, of which {shown(system['cores_usable'])} usable here",
        ),
        ("SIMD", shown(vectors)),
        ("Memory", memory(system)),
        ("PyTorch", f"{torch['version']} ({build})"),
        ("", f"{torch['threads']} CPU threads, SIMD level {shown(torch['simd'])}"),
    ]
    for name, why in found["extension"].items():
        rows.append(("Extension", f"for {name}: {why or 'compiled'}"))
    for number, gpu in enumerate(cuda["devices"]):
        text = f"{gpu['name']}, compute capability {gpu['capability']}, {memory(gpu)}"
        rows.append((f"cuda:{number}", text))
    if cuda["devices"]:
        return [*rows, ("CUDA driver", shown(cuda["driver"]))]
    return [*rows, ("CUDA devices", f"none: {cuda['reason']}")]


def package_rows(packages: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """Each package with its version and purpose, or how to get it."""
    rows = [("Package", "Version", "For")]
    for package in packages:
        purpose = package["purpose"]
        if package["version"] is None and package["install"]:
            purpose += f" ({package['install']})"
        rows.append((package["name"], shown(package["version"]), purpose))
    return rows


def operation_rows(found: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Each operation on each device: the path that runs, and a line for each faster one."""
    rows = [("Operation", "Device", "Path", "Why not a faster one")]
    for entry in found["operations"]:
        reasons = [f"{name}: {why}" for name, why in entry["refused"].items()] or [""]
        first, *others = reasons
        rows.append((entry["operation"], entry["device"], entry["backend"] or "none", first))
        rows += [("", "", "", reason) for reason in others]
    return rows


def memory(place: dict[str, Any]) -> str:
    """Total and available memory in GiB."""
    total, free = (
        MISSING if mb is None else f"{mb / 1024:.1f} GiB"
        for mb in (place["memory_total_mb"], place["memory_available_mb"])
    )
    return f"{total}, of which {free} available"


def shown(value: object) -> str:
    """The value, or that it was not found."""
    return MISSING if value is None else str(value)


def table(rows: Iterable[tuple[str, ...]]) -> str:
    """Rows in aligned columns, the last one wrapped to the width."""
    rows = list(rows)
    widths = [max(len(row[i]) for row in rows) + 2 for i in range(len(rows[0]) - 1)]
    indent = " " * sum(widths)
    lines = []
    for *cells, last in rows:
        start = "".join(cell.ljust(w) for cell, w in zip(cells, widths, strict=True))
        lines += textwrap.wrap(last, WIDTH, initial_indent=start, subsequent_indent=indent) or [
            start.rstrip()
        ]
    return "\n".join(lines)
