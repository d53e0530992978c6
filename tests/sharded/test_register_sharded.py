"""`register --shard`: the result of one process by several, whole or not at all."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import nibabel as nib
import numpy as np
import pytest
from synthetic import oblique_grid, synthetic_pair

from lganet_fast import DisplacementField, register
from lganet_fast.cli import main
from lganet_fast.volumes import nifti

FILES = ["--fixed", "fixed.nii", "--moving", "moving.nii"]
QUICK = ["--iterations", "20x10x4"]
TOLERANCE = 1e-4  # voxels


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A pair on different oblique grids as files, and the result of one process."""
    folder = tmp_path_factory.mktemp("pair")
    grids = (
        oblique_grid((36, 40, 33), (1.9, 1.8, 2.0), 8),
        oblique_grid((40, 38, 37), (1.8,) * 3, 3),
    )
    pair = synthetic_pair(*grids)
    for name in ("fixed", "moving"):
        volume = getattr(pair, name)
        nifti.save_volume(folder / f"{name}.nii", volume.data, volume.grid)
    register(
        folder / "fixed.nii",
        folder / "moving.nii",
        out=folder / "one",
        iterations=(20, 10, 4),
        qc=False,
    )
    return folder


def start(folder, count, *words):
    """The command in so many processes, as torchrun starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    shared |= {"WORLD_SIZE": f"{count}", "LOCAL_WORLD_SIZE": f"{count}", "MASTER_PORT": port}
    command = [sys.executable, "-m", "lganet_fast", "register", *words, "--shard"]
    ranks = [{"RANK": f"{n}", "LOCAL_RANK": f"{n}"} for n in range(count)]
    return [
        subprocess.Popen(
            command,
            cwd=folder,
            env=shared | {"MASTER_ADDR": "127.0.0.1"} | rank,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ranks
    ]


def ended(started):
    """The exit code and both outputs of each process."""
    said = [process.communicate(timeout=120) for process in started]
    return [(process.returncode, *both) for process, both in zip(started, said, strict=True)]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_several_processes_find_the_field_of_one(folder, count):
    out = f"out{count}"
    found = ended(start(folder, count, *FILES, *QUICK, "--out", out))
    assert [code for code, *_ in found] == [0] * count, found
    assert all(not printed for _, printed, _ in found[1:])
    assert "processes" in found[0][1]
    assert sorted(os.listdir(folder / out)) == ["report.json", "warp.nii", "warped.nii"]
    one, several = (
        DisplacementField.load(folder / path).displacement
        for path in ("one/warp.nii.gz", f"{out}/warp.nii")
    )
    moved = np.linalg.norm(one, axis=-1).max()
    assert moved > 2
    assert np.linalg.norm(one - several, axis=-1).max() < TOLERANCE * 1.8
    images = [nib.load(folder / path) for path in ("one/warped.nii.gz", f"{out}/warped.nii")]
    assert np.allclose(images[0].affine, images[1].affine)
    assert np.abs(images[0].get_fdata() - images[1].get_fdata()).max() < 1e-3
    reports = [json.loads((folder / x / "report.json").read_text()) for x in ("one", out)]
    for when in ("before", "after"):
        values = [report["similarity"][when] for report in reports]
        assert values[0] == pytest.approx(values[1], abs=1e-5)
    assert len(reports[1]["peak_memory_mb"]) == reports[1]["processes"] == count


def test_a_killed_process_ends_all_and_leaves_nothing(folder):
    started = start(folder, 2, *FILES, "--iterations", "1000x1000x1000", "--out", "killed")
    until = time.monotonic() + 60
    while not any("killed" in name for name in os.listdir(folder)):  # the folder to be renamed
        assert time.monotonic() < until
        time.sleep(0.01)
    started[1].send_signal(signal.SIGKILL)
    killed = time.monotonic()
    (code, _, said), _ = ended(started)
    assert time.monotonic() - killed < 30
    assert code == 2
    lines = [line for line in said.replace("\r", "\n").splitlines() if "error" in line]
    assert len(lines) == 1
    assert re.search("another process has ended|cannot join the other processes", lines[0])
    assert "Traceback" not in said
    assert not [name for name in os.listdir(folder) if "killed" in name]


def test_an_image_that_is_missing_is_said_by_all(folder):
    words = ["--fixed", "fixed.nii", "--moving", "nothing.nii", "--out", "unwritten"]
    for code, _, said in ended(start(folder, 2, *words)):
        assert code == 2
        assert "nothing.nii" in said
        assert "Traceback" not in said
    assert not (folder / "unwritten").exists()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--initial", "affine"], "initial affine"),
        (["--similarity", "mi"], "similarity mi"),
        (["--no-folds"], "no_folds"),
        (["--preset", "best"], "preset best"),
        (["--fixed-mask", "fixed.nii"], "fixed_mask"),
        (["--strict"], "--strict"),
    ],
)
def test_what_it_lacks_is_refused_in_one_line(folder, monkeypatch, capsys, words, named):
    monkeypatch.chdir(folder)
    assert main(["register", *FILES, "--out", "refused", "--shard", *words]) == 2
    said = capsys.readouterr().err
    assert "--shard" in said
    assert named in said
    assert said.count("\n") == 1
    assert not os.path.exists("refused")
