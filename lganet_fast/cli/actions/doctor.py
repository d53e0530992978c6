"""The diagnosis of this installation as text."""

from __future__ import annotations

import argparse
import json
from typing import Any

from ..tables import Part, Table, show
from .diagnosis import diagnose

MISSING = "not found"


def run(args: argparse.Namespace) -> None:
    """Print the diagnosis."""
    found = diagnose()
    if args.json:
        print(json.dumps(found, indent=2))
    else:
        show(diagnosis(found))


def diagnosis(found: dict[str, Any]) -> list[Part]:
    """The diagnosis in three tables."""
    return [
        Table(machine_rows(found), wrapped=True),
        "",
        Table(package_rows(found["packages"]), head=True, wrapped=True),
        "",
        Table(operation_rows(found), head=True, wrapped=True),
    ]


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
    """Each package with its version and purpose, or how to install it."""
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
    """The value as text, or MISSING for None."""
    return MISSING if value is None else str(value)
