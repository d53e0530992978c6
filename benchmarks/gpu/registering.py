"""Registration of a pair on the GPU: the command, and the search alone."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from lganet_fast.registration import optimiser
from lganet_fast.registration.settings import ITERATIONS, SMOOTHNESS
from lganet_fast.runtime.files import reason

from .. import ROOT
from ..case import Size, image
from .work import Work

NEEDED = ("nibabel", "scipy", "tqdm", "isal", "matplotlib", "jinja2")
SIZE: Size = (160, 192, 160)


def run(work: Work) -> None:
    """Time the search on tensors, then the command if its packages are installed."""
    try:
        work.put(search=search(work))
    except Exception as error:  # the command is still tried
        work.put(search=f"failed: {reason(error)}")
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        work.put(command=f"not run: {', '.join(missing)} not installed")
    elif work.dry:
        work.put(command="not run: no GPU")
    else:
        work.put(**command(work))


def search(work: Work) -> dict[str, Any]:
    """Seconds of the search for a synthetic pair, without files."""
    size: Size = (24, 24, 24) if work.dry else SIZE
    fixed, moving = (image(size, torch.float32, work.device, 1, s).detach() for s in (0, 1))
    seconds, done = [], 0

    def count(step: optimiser.Step) -> None:
        nonlocal done
        done += 1

    for _ in range(1 if work.dry else 3):
        done, started = 0, time.perf_counter()
        velocity = optimiser.optimise(
            fixed,
            moving,
            (None, None),
            similarity="lncc",
            iterations=(2, 1) if work.dry else ITERATIONS,
            smoothness=SMOOTHNESS["lncc"],
            margin=4.0,
            on_step=count,
        )
        float(velocity.sum())  # waits for the device
        seconds.append(time.perf_counter() - started)
        if work.left() < 2 * seconds[-1]:
            break
    return {"size": list(size), "seconds": seconds, "iterations": done}


def command(work: Work) -> dict[str, Any]:
    """Seconds of whole runs of the command, with the start of Python, and its last line."""
    seconds: list[float] = []
    told = ""
    with tempfile.TemporaryDirectory() as folder:
        names = files(Path(folder))
        for number in range(3):
            started = time.perf_counter()
            pair = ("--fixed", names[0], "--moving", names[1])
            words = ("-m", "lganet_fast", "register", *pair, "--device", "cuda")
            done = subprocess.run(
                [sys.executable, *words, "--out", f"{folder}/out{number}"],
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=max(work.left() - 1, 1),
                check=False,
            )
            told = (done.stdout + done.stderr).strip()[-500:]
            if done.returncode:
                return {"command": f"failed: {told}"}
            seconds.append(time.perf_counter() - started)
            work.put(**{"seconds each": seconds})
            if work.left() < 2 * seconds[-1]:
                break
    return {"command": told, "seconds each": seconds}


def files(folder: Path) -> list[str]:
    """Fixed and moving volume: from LPBA40 if available, else synthetic."""
    if root := os.environ.get("LPBA40_ROOT"):
        moving = Path(root) / "test" / "S02.delineation.skullstripped.nii.gz"
        return [str(Path(root) / "fixed.nii.gz"), str(moving)]
    import nibabel as nib
    import numpy as np

    names = []
    for seed in (0, 1):
        data = image(SIZE, torch.float32, "cpu", 1, seed).detach()[0, 0].numpy()
        names.append(str(folder / f"{seed}.nii.gz"))
        nib.save(nib.Nifti1Image(data, np.eye(4)), names[-1])
    return names
