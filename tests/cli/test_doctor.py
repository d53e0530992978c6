"""The diagnosis names what is there, and never fails over what is not."""

from __future__ import annotations

import json
import platform
from argparse import Namespace

import pytest
import torch

from lganet_fast import __version__
from lganet_fast.cli.actions import diagnosis
from lganet_fast.cli.actions import doctor as command
from lganet_fast.cli.tables import WIDTH
from lganet_fast.ops import OPERATIONS, choose_backend
from lganet_fast.runtime import hardware

GPU = {
    "name": "Example GPU",
    "capability": "9.0",
    "memory_total_mb": 80 * 1024,
    "memory_available_mb": 79 * 1024,
}


def printed(capsys, as_json=False):
    command.run(Namespace(json=as_json))
    return capsys.readouterr().out


def test_says_what_is_here(capsys):
    text = printed(capsys)
    for fact in (__version__, platform.python_version(), torch.__version__, "numpy", "nibabel"):
        assert fact in text
    assert all(len(line) <= WIDTH for line in text.splitlines())
    assert text.isascii()
    rows = [line.split()[:3] for line in text.splitlines()]
    for operation in OPERATIONS:
        assert [operation, "cpu", choose_backend(operation, "cpu").backend] in rows


def test_json_is_the_diagnosis(capsys):
    found = json.loads(printed(capsys, as_json=True))
    assert found["torch"]["threads"] == torch.get_num_threads()
    assert [entry["operation"] for entry in found["operations"]][: len(OPERATIONS)] == list(
        OPERATIONS
    )
    assert found["system"]["memory_total_mb"] > found["system"]["memory_available_mb"] > 0
    assert bool(found["cuda"]["devices"]) == (found["cuda"]["reason"] is None)


def test_gpu_adds_its_own_rows(capsys, monkeypatch):
    monkeypatch.setattr(
        diagnosis, "cuda_devices", lambda: {"devices": [GPU], "driver": "600.1", "reason": None}
    )
    text = printed(capsys)
    assert "Example GPU, compute capability 9.0, 80.0 GiB, of which 79.0 GiB available" in text
    assert "600.1" in text
    rows = [line.split()[:2] for line in text.splitlines()]
    assert all([operation, "cuda"] in rows for operation in OPERATIONS)


def test_missing_package_says_how_to_get_it(capsys, monkeypatch):
    absent = ("SimpleITK", "nilearn")
    version = hardware.package_version
    monkeypatch.setattr(
        diagnosis, "package_version", lambda name: None if name in absent else version(name)
    )
    lines = printed(capsys).splitlines()
    for name, extra in zip(absent, ("itk", "demo"), strict=True):
        (line,) = [line for line in lines if line.startswith(name)]
        assert "not found" in line
        assert f"pip install 'lganet_fast[{extra}]'" in line


@pytest.mark.parametrize("name", ["triton", "quick"])
def test_unusable_backend_variable_is_shown(capsys, monkeypatch, name):
    monkeypatch.setenv("LGANET_FAST_BACKEND", name)
    text = printed(capsys)
    assert "LGANET_FAST_BACKEND: backend" in text
    assert f"'{name}'" in text


def broken(*arguments, **options):
    raise RuntimeError("nothing works")


def test_survives_a_machine_that_answers_nothing(capsys, monkeypatch):
    """Every probe fails, and the text still comes, saying so."""
    for owner, name in (
        (hardware.Path, "read_text"),
        (hardware.os, "sysconf"),
        (hardware.metadata, "version"),
        (hardware.subprocess, "run"),
        (hardware, "available_memory"),
        (torch.cuda, "device_count"),
        (torch.backends.cpu, "get_cpu_capability"),
    ):
        monkeypatch.setattr(owner, name, broken, raising=False)
    monkeypatch.delattr(hardware.os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(hardware.platform, "processor", lambda: "")
    text = printed(capsys)
    assert text.count("not found") > 8
    json.loads(printed(capsys, as_json=True))


CPUINFO = {
    "x86_64": ("flags\t\t: fpu avx avx2 avx512f\n\nflags : none", "AVX2 yes, AVX-512 yes"),
    "aarch64": ("processor : 0\nFeatures : fp asimd sve\n", "NEON yes, SVE yes, BF16 no"),
}


@pytest.mark.parametrize("machine", CPUINFO)
def test_vector_instructions(capsys, monkeypatch, machine):
    content, expected = CPUINFO[machine]
    monkeypatch.setattr(hardware.Path, "read_text", lambda self, encoding: content)
    monkeypatch.setattr(hardware.platform, "machine", lambda: machine)
    assert expected in printed(capsys)


@pytest.mark.parametrize(
    ("build", "driver", "hidden", "why"),
    [
        (None, None, None, "this PyTorch is a build without CUDA"),
        ("13.0", "600.1", "", "CUDA_VISIBLE_DEVICES hides every device"),
        ("13.0", None, None, "no NVIDIA driver found"),
        ("13.0", "600.1", None, "nothing works"),
    ],
)
def test_reason_for_no_cuda(monkeypatch, build, driver, hidden, why):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if hidden is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    monkeypatch.setattr(torch.version, "cuda", build)
    monkeypatch.setattr(torch.cuda, "init", broken)
    assert hardware.why_no_cuda(driver).startswith(why)
